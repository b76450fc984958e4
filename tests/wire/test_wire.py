"""Messages survive the wire; whatever else arrives is refused with the field's name, and with nothing but WireError."""

from __future__ import annotations

import itertools
import json
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalimmu.wire import codec, messages
from metalimmu.wire.codec import WireError
from metalimmu.wire.manifest import CHUNK, Extent, Manifest

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
MESSAGES = [
    messages.CheckIn,
    messages.Progress,
    messages.Report,
    messages.Failure,
    messages.SystemReport,
    messages.Assignment,
    Manifest,
]
SHA = st.none() | st.binary(min_size=32, max_size=32).map(bytes.hex)


def manifest(chunks: list[str | None], cut: int = 0) -> Manifest:
    return Manifest(kind="disk", architecture="x86_64", size=len(chunks) * CHUNK - cut * 512, chunks=tuple(chunks))


@given(st.lists(SHA, min_size=1, max_size=40), st.integers(0, 2047))
def test_manifest_round_trip(chunks: list[str | None], cut: int) -> None:
    m = manifest(chunks, cut)
    again = Manifest.decode(m.encode())
    assert again == m
    assert again.digest == m.digest


@given(st.lists(SHA, min_size=1, max_size=40), st.integers(0, 2047))
def test_zero_extents_are_what_no_chunk_covers(chunks: list[str | None], cut: int) -> None:
    m = manifest(chunks, cut)
    covered = sum(m.chunk_extent(i).length for i, c in enumerate(m.chunks) if c is not None)
    zero = list(m.zero_extents())
    assert covered + sum(e.length for e in zero) == m.size
    assert all(a.offset + a.length < b.offset for a, b in itertools.pairwise(zero))


@given(JSON)
def test_any_json_is_a_message_or_a_wire_error(value: object) -> None:
    for kind in MESSAGES:
        try:
            codec.decode(kind, json.dumps(value))
        except WireError:
            continue


@given(st.sampled_from(MESSAGES[:-1]), st.data())
def test_a_field_of_another_type_is_named(kind: type, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([f.name for f in fields(kind)]))
    with pytest.raises(WireError, match=kind.__name__):
        codec.decode(kind, json.dumps({name: {"neither": [1]} if name != "evidence" else 3}))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 2}, "version"),
        ({"size": CHUNK * 3}, "chunks cannot make"),
        ({"size": -1}, "chunks cannot make"),
        ({"sector_size": 100}, "sectors"),
        ({"chunks": ["00", None]}, "no SHA-256"),
        ({"chunks": ["../../etc/passwd".ljust(64, "0"), None]}, "no SHA-256"),
        ({"config_extents": [{"offset": 2 * CHUNK, "length": 1}]}, "outside"),
        ({"seed": {"offset": -1, "length": 5}}, "outside"),
    ],
)
def test_a_manifest_that_contradicts_itself(change: dict[str, object], says: str) -> None:
    good = json.loads(manifest(["ab" * 32, None]).encode())
    with pytest.raises(WireError, match=says):
        Manifest.decode(json.dumps({**good, **change}).encode())


def test_unknown_fields_of_a_newer_side_are_ignored() -> None:
    said = codec.decode(messages.Orders, '{"fence": 3, "go": true, "tomorrow": 1}')
    assert said == messages.Orders(fence=3, go=True)


def test_chunk_extents_end_with_the_image() -> None:
    m = manifest(["ab" * 32, "cd" * 32], cut=1)
    assert m.chunk_extent(1) == Extent(CHUNK, CHUNK - 512)
