"""The words for steps that live views show."""

from __future__ import annotations

from metalimmu.plan import kinds, method, reimage, switch
from metalimmu.plan.titles import title

EACH = (reimage.TITLES, method.TITLES, kinds.TITLES, switch.TITLES)


def test_a_step_has_the_title_of_its_plan_whatever_the_machine() -> None:
    for titles in EACH:
        assert {step: title(step) for step in titles} == titles


def test_a_step_of_another_version_is_named_as_it_is() -> None:
    assert title("brew-tea") == "brew-tea"
