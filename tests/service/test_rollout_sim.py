"""A thousand hosts in waves, 2 % of all acts failing, two people, freezes, pauses, clocks that jump, and a controller that
dies: never below `min_active`, never above a guard, and every host ends proven, in quarantine or untouched.

What is checked, and when, is in rollout_sim.py: at each admission and at each moment a machine is taken away.
"""

from __future__ import annotations

import os

import pytest
from rollout_sim import scenario

SEEDS = int(os.environ.get("METALIMMU_SEEDS", "5"))  # `make simulate` plays 200: twelve minutes of one core
TOGETHER = 5


@pytest.mark.parametrize("first", range(0, SEEDS, TOGETHER))
def test_a_thousand_hosts(first: int) -> None:
    found = [scenario(seed, 1000) for seed in range(first, first + TOGETHER)]
    assert sum(f["starts"] for f in found) > 1000
    assert sum(f["failures"] for f in found) > 100
    assert all(sum(f[what] for f in found) for what in ("deaths", "returned", "new"))


def test_small_sites_meet_their_limits_more_often() -> None:
    found = [scenario(seed, 25) for seed in range(60)]
    assert sum(f["starts"] for f in found) > 500
