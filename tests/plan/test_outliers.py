"""Like machines, and who is not like the others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from metalimmu.plan.outliers import ABSENT, Group, Groups

A, B = Group("Acme", "A1"), Group("Acme", "B1")


def reports(values: list[object], setting: str = "bios.X", **unknown):
    groups = Groups()
    for i, value in enumerate(values):
        settings = {} if value is ... else {setting: value}
        groups.add(A, f"n{i}", settings, unknown.get(f"n{i}", ()))
    return list(groups.reports())


def test_one_is_not_like_the_others():
    (report,) = reports(["on"] * 4 + ["off"])
    (outlier,) = report.outliers
    assert (outlier.value, outlier.hosts, outlier.majority) == ("off", ("n4",), "on")
    assert (outlier.majority_count, outlier.known) == (4, 5)


def test_all_alike():
    (report,) = reports([True] * 5)
    assert (report.outliers, report.splits, report.distinct) == ((), (), ())


def test_the_type_of_a_value_is_told_by_its_words():
    (report,) = reports([1, 1, 1, ("a", "b")])
    assert [(o.value, o.majority) for o in report.outliers] == [("a, b", "1")]


def test_a_tie_is_said_and_nobody_is_an_outlier():
    (report,) = reports(["on", "on", "off", "off"])
    assert report.outliers == ()
    assert [(s.tie, s.values) for s in report.splits] == [(True, (("off", 2), ("on", 2)))]


def test_no_majority_is_said():
    (report,) = reports(["a"] * 4 + ["b"] * 3 + ["c"] * 3)
    assert report.outliers == ()
    assert [s.tie for s in report.splits] == [False]


def test_fewer_than_three_are_no_crowd():
    (report,) = reports(["on", "off"])
    assert report.small
    assert report.outliers == report.splits == ()


def test_a_setting_that_one_lacks():
    (report,) = reports(["on", "on", "on", ...])
    assert [(o.value, o.hosts) for o in report.outliers] == [(ABSENT, ("n3",))]


def test_a_setting_that_one_has_alone():
    (report,) = reports([..., ..., ..., "on"])
    assert [(o.value, o.hosts, o.majority) for o in report.outliers] == [("on", ("n3",), ABSENT)]


def test_what_could_not_be_read_is_not_missing():
    (report,) = reports(["on", "on", "on", ...], n3=["bios"])
    assert report.outliers == ()
    (report,) = reports(["on", "on", "on", ...], n3=["bios.X"])
    assert report.outliers == ()


def test_what_tells_machines_apart_is_left_out():
    (report,) = reports([f"SN{i}" for i in range(10)])
    assert (report.distinct, report.outliers, report.splits) == (("bios.X",), (), ())
    (report,) = reports([f"SN{i}" for i in range(5000)])
    assert report.distinct == ("bios.X",)


def test_groups_are_apart_and_the_largest_is_first():
    groups = Groups()
    for i in range(3):
        groups.add(A, f"a{i}", {"bios.X": "on"})
    for i in range(4):
        groups.add(B, f"b{i}", {"bios.X": "off"})
    assert [(r.group, len(r.hosts), r.outliers) for r in groups.reports()] == [(B, 4, ()), (A, 3, ())]


@given(values=st.lists(st.sampled_from(["a", "b", "c", ...]), min_size=3, max_size=40))
def test_outliers_and_majority_are_all_hosts(values):
    (report,) = reports(values)
    for outlier in report.outliers:
        assert outlier.majority_count * 2 > outlier.known
    if report.outliers:
        majority, count = report.outliers[0].majority, report.outliers[0].majority_count
        named = [h for o in report.outliers for h in o.hosts]
        assert len(named) == len(set(named)) == len(values) - count
        same = [ABSENT if v is ... else v for v in values].count(majority)
        assert same == count
