"""Boot media by ranges: any slice of what is served is that slice of the whole."""

from __future__ import annotations

import pytest
from boot_rig import SLOT_OFFSET, SLOT_SIZE, Rig
from hypothesis import given, settings
from hypothesis import strategies as st

from metalimmu.boot.media import slot
from metalimmu.boot.ranges import Slice, parse
from metalimmu.wire.messages import Boot
from metalimmu_emulator.simulated_agent import find_boot

CASES = [
    (None, 200, 0, 100),
    ("", 200, 0, 100),
    ("bytes=0-0", 206, 0, 1),
    ("bytes=10-19", 206, 10, 10),
    ("Bytes=10-19", 206, 10, 10),
    ("bytes=90-", 206, 90, 10),
    ("bytes=90-500", 206, 90, 10),
    ("bytes=-7", 206, 93, 7),
    ("bytes=-500", 206, 0, 100),
    ("bytes=100-", 416, 0, 0),
    ("bytes=100-200", 416, 0, 0),
    ("bytes=-0", 416, 0, 0),
    ("bytes=5-4", 200, 0, 100),
    ("bytes=-", 200, 0, 100),
    ("bytes=0-1,5-6", 200, 0, 100),
    ("bytes=a-b", 200, 0, 100),
    ("bytes=1-2\n", 200, 0, 100),
    ("bytes=٣-٤", 200, 0, 100),
    ("items=0-1", 200, 0, 100),
    ("bytes=99999999999999999999999999-", 200, 0, 100),
]


@pytest.mark.parametrize(("header", "status", "offset", "length"), CASES)
def test_the_header_is_read_as_rfc_9110_says(header, status, offset, length):
    assert parse(header, 100) == Slice(status, offset, length, 100)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 10**6))
def test_a_slice_lies_inside(first, last, size):
    found = parse(f"bytes={first}-{last}", size)
    assert found.offset >= 0
    assert found.offset + found.length <= size
    assert (found.status == 416) == (last >= first >= size)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    rig = Rig(tmp_path_factory.mktemp("ranges"))
    rig.service.start()
    rig.deploy("n1", rig.images.add("web", "1"))
    iso = rig.iso.read_bytes()
    boot = Boot(rig.urls.machines, rig.key.secret("agent", "n1"), rig.tls.pin, "n1")
    whole = iso[:SLOT_OFFSET] + slot(boot, SLOT_SIZE) + iso[SLOT_OFFSET + SLOT_SIZE :]
    yield rig, f"/m/{rig.key.secret('media', 'n1')}/boot.iso", whole
    rig.close()


def test_the_whole_media_has_the_machine_s_boot_data(served):
    rig, path, whole = served
    status, headers, data = rig.get(path)
    assert status == 200
    assert data == whole
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["Content-Length"] == str(len(whole))
    assert find_boot([data]).token == rig.key.secret("agent", "n1")


def test_head_says_the_size(served):
    rig, path, whole = served
    status, headers, data = rig.get(path, method="HEAD")
    assert (status, data) == (200, b"")
    assert headers["Content-Length"] == str(len(whole))
    assert headers["Accept-Ranges"] == "bytes"


def test_a_range_beyond_the_end_is_416(served):
    rig, path, whole = served
    status, headers, data = rig.get(path, headers={"Range": f"bytes={len(whole)}-"})
    assert (status, data) == (416, b"")
    assert headers["Content-Range"] == f"bytes */{len(whole)}"


def test_a_condition_that_cannot_hold_gets_the_whole(served):
    rig, path, whole = served
    status, _, data = rig.get(path, headers={"Range": "bytes=0-9", "If-Range": '"etag"'})
    assert (status, data) == (200, whole)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_range_is_that_slice(served, data):
    rig, path, whole = served
    edges = st.sampled_from([0, SLOT_OFFSET, SLOT_OFFSET + SLOT_SIZE, len(whole)])
    near = st.builds(lambda edge, by: min(len(whole) - 1, max(0, edge + by)), edges, st.integers(-3, 3))
    place = st.one_of(st.integers(0, len(whole) - 1), near)
    first, last = sorted((data.draw(place), data.draw(place)))
    status, headers, got = rig.get(path, headers={"Range": f"bytes={first}-{last}"})
    assert status == 206
    assert headers["Content-Range"] == f"bytes {first}-{last}/{len(whole)}"
    assert got == whole[first : last + 1]


def test_ranges_are_answered_on_one_connection(served):
    rig, path, whole = served
    connection = rig.plain()
    got = b""
    for start in range(0, len(whole), 8192):
        connection.request("GET", path, headers={"Range": f"bytes={start}-{start + 8191}"})
        got += connection.getresponse().read()
    connection.close()
    assert got == whole
