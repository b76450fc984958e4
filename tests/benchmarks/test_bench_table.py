"""What the table claims follows from the numbers."""

from __future__ import annotations

import io
import random
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))

from benchmarks.result import as_fast, at_most, limited, table, told  # noqa: E402
from benchmarks.vm_clock import REPORTED, Clock, strange  # noqa: E402


def test_the_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    # A round that the machine was busy in is slow for both sides: it must not decide.
    result = at_most("x", [1.2, 12.0, 1.3], [1.0, 10.0, 1.0], 1.25, unit="s", rival="y", equal=True)
    assert result.value == pytest.approx(1.2)
    assert result.spread == (pytest.approx(1.2), pytest.approx(1.3))
    assert result.holds
    assert result.good
    assert not at_most("x", [1.3], [1.0], 1.25, unit="s", rival="y").good


def test_as_fast_is_the_other_way_round() -> None:
    assert as_fast("x", [1.0], [3.0], 3, unit="s", rival="y").holds
    assert not as_fast("x", [1.0], [2.9], 3, unit="s", rival="y").holds


def test_a_wrong_answer_is_never_good_however_fast() -> None:
    result = as_fast("x", [1.0], [100.0], 1, unit="s", rival="y", equal=False)
    assert result.holds
    assert not result.good
    assert result.verdict == "WRONG ANSWER"


def test_a_limit_and_a_number_that_is_only_told() -> None:
    assert limited("x", [79.0, 81.0, 80.0], 80, unit="ms").good
    assert not limited("x", [81.0], 80, unit="ms").good
    assert not limited("x", [0.0, 0.0, 1.0], 0, unit="BMCs", worst=True).good
    assert told("x", [3.0], [2.0], unit="s", rival="y").value == 1.5
    assert told("x", [1e9], unit="s").good


def test_the_table_has_every_column_for_every_line() -> None:
    lines = table([
        at_most("pair", [1.0, 3.0], [2.0, 2.0], 1.3, unit="s", rival="bare", equal=True),
        limited("limit", [5000.0], 400, unit="MB", equal=False),
    ]).splitlines()  # fmt: skip
    head, pair, limit = lines
    assert pair[head.index("ratio") :].startswith("1.00 [0.50 .. 1.50]")
    assert "2.00 s [1.00 .. 3.00]" in pair
    assert pair.endswith("yes")
    assert "WRONG ANSWER" in limit
    assert limit.endswith("NO")


def test_sectors_that_differ_are_found_and_only_declared_ones_are_forgiven() -> None:
    image = random.Random(3).randbytes(3 << 20)
    disk = bytearray(image + b"\xa5" * 4096)  # the disk is larger than the image
    disk[700] ^= 1
    disk[(2 << 20) + 5] ^= 1
    assert strange(io.BytesIO(image), io.BytesIO(disk), []) == [512, 2 << 20]
    assert strange(io.BytesIO(image), io.BytesIO(disk), [(512, 512)]) == [2 << 20]
    assert strange(io.BytesIO(image), io.BytesIO(disk), [(512, 512), (2 << 20, 1024)]) == []
    assert strange(io.BytesIO(image), io.BytesIO(image[:-512]), [])  # a disk that ends early


def test_the_clock_sees_only_what_came_after_it_was_started(tmp_path: Path) -> None:
    console = tmp_path / "console.log"
    console.write_bytes(REPORTED + b"\n")
    clock = Clock(console)
    try:
        with pytest.raises(RuntimeError, match="not on the console"):
            clock.saw(REPORTED, 0.1)
        writer = threading.Thread(
            target=lambda: console.write_bytes(console.read_bytes() + b"tiny\n" + REPORTED + b"\n")
        )
        writer.start()
        at = clock.saw(REPORTED, 10)
        writer.join()
        assert clock.timeline(at)[0].endswith("tiny")
    finally:
        clock.stop()
