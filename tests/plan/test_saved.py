"""A saved plan as bytes: what is written is what is read, and nothing else is read as a plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from saved_rig import content, host_plan, site

from metalimmu.errors import PlanError
from metalimmu.plan.saved import Left, Options, canonical, decode, digest_of, encode
from metalimmu.plan.types import Plan


@pytest.fixture
def written(tmp_path: Path) -> bytes:
    return encode(content(tmp_path))[1]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    before = content(tmp_path, 3, refused=(Left(host="x", reason="away"),), done=("y",))
    digest, data = encode(before)
    found = decode(data)
    assert found.content == before
    assert found.digest == digest
    assert encode(found.content) == (digest, data)


def test_each_host_has_the_complete_plan_of_its_run(tmp_path: Path) -> None:
    before = content(tmp_path)
    found = decode(encode(before)[1])
    for was, now in zip(before.hosts, found.content.hosts, strict=True):
        assert now.plan == Plan.decode(was.plan.encode())
        assert [r.path for s in now.plan.steps for r in s.requests] == [
            "/redfish/v1/Managers/1/VirtualMedia/CD/Actions/VirtualMedia.InsertMedia",
            "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset",
        ]


def test_the_digest_is_of_the_canonical_content(written: bytes) -> None:
    """Anybody can make it: `jq -cS .content` and sha256, for all that has no floats written otherwise."""
    document = json.loads(written)
    text = json.dumps(document["content"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert document["digest"] == digest_of(text.encode())
    assert document["metalimmu_plan"] == 1


@pytest.mark.parametrize("indent", [None, 1, 4])
def test_layout_does_not_matter(written: bytes, indent: int | None) -> None:
    again = json.dumps(json.loads(written), indent=indent).encode()
    assert decode(again).digest == decode(written).digest


def test_what_plans_have_in_common_is_written_once(tmp_path: Path) -> None:
    few, many = (len(encode(content(tmp_path, n))[1]) for n in (1, 41))
    assert (many - few) / 40 < 0.6 * few
    site(tmp_path, 2)
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/user-data.j2").write_text("#cloud-config\n# " + "x" * 100_000 + "\n")
    (tmp_path / "roles/web.yaml").write_text("image: web@2\nconfig: {user-data: user-data.j2}\n")
    hosts = tuple(host_plan(tmp_path, f"node-{i}") for i in (1, 2))
    base = decode(encode(content(tmp_path / "other"))[1]).content
    assert len(encode(msgspec.structs.replace(base, hosts=hosts))[1]) < 120_000


def test_a_variable_that_looks_like_a_shared_part(tmp_path: Path) -> None:
    base = content(tmp_path)
    for odd in ({"=": 0}, {"=": 99}, {"=": {"=": 1}}, {}):
        plan = base.hosts[0].plan
        spec = msgspec.structs.replace(plan.spec, vars=odd)
        host = msgspec.structs.replace(base.hosts[0], plan=msgspec.structs.replace(plan, spec=spec))
        before = msgspec.structs.replace(base, hosts=(host, base.hosts[1]))
        assert decode(encode(before)[1]).content == before


Leaf = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
Value = st.recursive(Leaf, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v, max_size=3), max_leaves=8)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    variables=st.dictionaries(st.text(max_size=8), Value, max_size=4),
    options=st.builds(
        Options, reason=st.none() | st.text(), batch=st.none() | st.integers() | st.text(), force=st.booleans()
    ),
)
def test_encode_decode_digest_are_stable(tmp_path: Path, variables: dict[str, Any], options: Options) -> None:
    base = content(tmp_path)
    plan = base.hosts[0].plan
    spec = msgspec.structs.replace(plan.spec, vars=variables)
    host = msgspec.structs.replace(base.hosts[0], plan=msgspec.structs.replace(plan, spec=spec))
    before = msgspec.structs.replace(base, hosts=(host, base.hosts[1]), options=options)
    digest, data = encode(before)
    found = decode(data)
    assert found.digest == digest
    assert encode(found.content) == (digest, data)
    assert decode(json.dumps(json.loads(data)).encode()).digest == digest


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_no_changed_byte_goes_unseen(written: bytes, place: int, byte: int) -> None:
    place %= len(written)
    changed = written[:place] + bytes([byte]) + written[place + 1 :]
    try:
        found = decode(changed)
    except PlanError:
        return
    assert found == decode(written)  # a space became another, or a name of the outermost level that nobody reads


@pytest.mark.parametrize("cut", [0, 1, 10, 1000, -1, -2, -3, -100])
def test_a_plan_that_was_cut_off(written: bytes, cut: int) -> None:
    with pytest.raises(PlanError, match=r"cut off|no saved plan"):
        decode(written.rstrip()[:cut])


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00" * 100, b"\xff\xfe", b"null", b"[]", b"{}", b'"x"', b"[" * 100_000, b'{"metalimmu_plan":"1"}', b"-----BEGIN", b'{"a":' * 50_000,
     b'{"metalimmu_plan": 1, "digest": "x", "content": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"],
)  # fmt: skip
def test_what_is_no_plan(data: bytes) -> None:
    with pytest.raises(PlanError) as raised:
        decode(data)
    assert raised.value.hint


def _edited(data: bytes, change: Any, *, keep_digest: bool) -> bytes:
    document = json.loads(data)
    change(document["content"])
    if not keep_digest:
        document["digest"] = digest_of(canonical(document["content"]))
    return json.dumps(document).encode()


def _set(path: str, value: Any) -> Any:
    def change(inside: Any) -> None:
        *above, last = path.split(".")
        for key in above:
            inside = inside[int(key)] if key.isdigit() else inside[key]
        inside[int(last) if last.isdigit() else last] = value

    return change


EDITS = [
    ("site", "other"), ("expires", 4e9), ("options.max_failures", 100), ("options.allow_protected", True), ("author.name", "bob"),
    ("hosts.0.wave", 7), ("hosts.0.plan.spec.root_disk.wwn", "0x1"), ("hosts.0.plan.identity.serial", "S999"), ("hosts.0.config", "d" * 64),
    ("shared.0.ref", "evil@1"), ("hosts.1.plan.image", {"=": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value"), EDITS)
def test_an_edited_plan(written: bytes, path: str, value: Any) -> None:
    with pytest.raises(PlanError, match="changed after it was made"):
        decode(_edited(written, _set(path, value), keep_digest=True))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("hosts.0.plan.surprise", 1, "more than this metalimmu understands"),
        ("options.returning", True, "does not say what a plan"),
        ("options.approved_by", ["a", "b", "c"], "does not say what a plan"),
        ("options.max_failures", "many", "does not say what a plan"),
        ("guards.pools", 5, "does not say what a plan"),
        ("hosts.0.pool", "other", "pool is not its plan's"),
        ("later", {}, "more than this metalimmu understands"),
        ("hosts.0.plan.steps.0", {"=": 10_000}, "does not say what a plan"),
        ("hosts.0.plan.steps.0", {"=": "x"}, "does not say what a plan"),
        ("hosts.0.plan", "x", "does not say what a plan"),
        ("hosts.0.plan.spec", 5, "does not say what a plan"),
        ("hosts", {}, "cannot be read"),
        ("shared", None, "does not say what a plan"),
        ("hosts.0.host", "node-2", "host twice"),
        ("hosts.0.host", "node-9", "another host's"),
        ("expires", 1.0, "expired before"),
        ("verb", "rollback", "not for this verb"),
        ("created", "yesterday", "does not say what a plan"),
    ],
)
def test_a_plan_that_another_program_made(written: bytes, path: str, value: Any, said: str) -> None:
    """Its digest is right: that alone makes no plan of it."""
    with pytest.raises(PlanError, match=said):
        decode(_edited(written, _set(path, value), keep_digest=False))


def test_a_plan_without_hosts(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="no hosts"):
        decode(encode(content(tmp_path, hosts=()))[1])


@pytest.mark.parametrize("version", [0, 2, -1, 10**30])
def test_another_format(written: bytes, version: int) -> None:
    document = json.loads(written)
    document["metalimmu_plan"] = version
    with pytest.raises(PlanError, match=rf"format {version}, this metalimmu reads format 1|no saved plan"):
        decode(json.dumps(document).encode())


def test_control_characters_of_a_stranger_do_not_reach_the_terminal(written: bytes) -> None:
    document = json.loads(written)
    document["digest"] = "\x1b[2Jsha256:\x07" + "x" * 10_000
    with pytest.raises(PlanError) as raised:
        decode(json.dumps(document).encode())
    assert "\x1b" not in raised.value.message
    assert len(raised.value.message) < 500
