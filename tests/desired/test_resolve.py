"""One host's spec out of all documents: which one wins."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalimmu.desired import units
from metalimmu.desired.load import load
from metalimmu.desired.resolve import combine, resolve, resolve_all
from metalimmu.desired.types import HostSpec, Network, Role
from metalimmu.errors import NotFound, SiteError, TemplateError
from metalimmu.wire.messages import RootDisk

HOST = {"name": "a", "bmc": "redfish+https://10.0.0.1"}


def spec(make_site: Any, *, host: str = "", role: str = "", pool: str = "", site: str = "", **files: str) -> HostSpec:
    """The spec of host `a`; each argument is more YAML of that document."""
    folder = make_site(
        {
            "site.yaml": 'name: s\nurls: {bmc: "http://10.0.0.5:8080", machines: "https://10.1.0.5:8443"}\n' + site,
            "hosts/a.yaml": f"name: a\nbmc: 'redfish+https://10.0.0.1'\nrole: web\npool: p\n{host}",
            "roles/web.yaml": f"image: web@2\n{role}",
            "pools/p.yaml": pool or "{}",
            **{name.replace("__", "/").replace("_", "."): text for name, text in files.items()},
        }
    )
    return resolve(load(folder), "a", root=folder)


def test_defaults(make_site: Any) -> None:
    got = spec(make_site)
    assert (got.mode, got.image, got.digest, got.held) == ("read-only", "web@2", None, None)
    assert (got.boot, got.firmware, got.ramdisk, got.proof.by) == ("auto", "uefi", "generic", "report")
    assert (got.credentials, got.proxy, got.tls.verify, got.protected) == (None, None, True, False)
    assert (got.connect_timeout, got.read_timeout) == (10.0, 60.0)
    assert got.limits == {
        "power": 300,
        "media": 300,
        "check_in": 1800,
        "stall": 600,
        "phone_home": 1800,
        "bmc": 900,
        "report_again": 300,
        "apply": 600,
        "install": 7200,
    }
    assert got.labels == {"name": "a", "kind": "server", "role": "web", "pool": "p"}
    assert got.network == Network()


def test_a_host_without_role_or_pool(make_site: Any) -> None:
    folder = make_site({"hosts/a.yaml": "name: a\nbmc: 'redfish+https://10.0.0.1'\n"})
    got = resolve(load(folder), "a", root=folder)
    assert (got.role, got.pool, got.image, got.templates) == (None, None, None, {})
    assert got.labels == {"name": "a", "kind": "server"}


def test_hold_wins_over_the_role(make_site: Any) -> None:
    one, two = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    got = spec(
        make_site,
        holds_yaml="- {host: a, image: web@1, reason: slow, since: '2026-11-03'}",
        images_lock=f"web@1: {one}\nweb@2: {two}\n",
    )
    assert (got.image, got.digest) == ("web@1", one)
    assert got.held is not None
    assert got.held.reason == "slow"
    free = spec(make_site, holds_yaml="[]", images_lock=f"web@1: {one}\nweb@2: {two}\n")
    assert (free.image, free.digest, free.held) == ("web@2", two, None)


def test_mode_of_the_pool_wins(make_site: Any) -> None:
    assert spec(make_site, pool="mode: read-write").mode == "read-write"
    assert spec(make_site, site="mode: read-write\n").mode == "read-write"
    assert spec(make_site, site="mode: read-write\n", pool="mode: read-only").mode == "read-only"


def test_labels_and_vars(make_site: Any) -> None:
    got = spec(
        make_site,
        host="labels: {a: host}\nvars: {a: host}\nmodel: R750\nlocation: {rack: r1}\n",
        role="labels: {a: role, b: role}\nvars: {a: role, b: role, deep: {x: 1}}\n",
        pool="labels: {a: pool, b: pool, c: pool}\nvars: {c: pool, deep: {y: 1}}\n",
        site="vars: {c: site, d: site}\n",
    )
    own = {"name": "a", "kind": "server", "model": "R750", "rack": "r1", "role": "web", "pool": "p"}
    assert got.labels == {"a": "host", "b": "role", "c": "pool", **own}
    assert got.vars == {"a": "host", "b": "role", "c": "pool", "d": "site", "deep": {"x": 1}}


def test_network_field_by_field(make_site: Any) -> None:
    got = spec(
        make_site,
        host="nics: ['B8-CA-3A-00-00-01', 'b8:ca:3a:00:00:02']\nnetwork: {address: 10.1.0.7/24, mtu: 1500}\n",
        role="network: {bond: 802.3ad, vlan: 7, mtu: 9000, gateway: 10.1.0.1, dns: ['10.1.0.53']}\n",
    )
    assert got.nics == ("b8:ca:3a:00:00:01", "b8:ca:3a:00:00:02")
    assert got.network == Network(
        address="10.1.0.7/24", mtu=1500, bond="802.3ad", vlan=7, gateway="10.1.0.1", dns=["10.1.0.53"]
    )


def test_nics_of_the_network_stand_in_for_the_hosts(make_site: Any) -> None:
    got = spec(make_site, host="network: {nics: ['B8:CA:3A:00:00:01']}\n")
    assert got.nics == ("b8:ca:3a:00:00:01",)
    assert got.network.nics == ["b8:ca:3a:00:00:01"]


def test_root_disk_hints(make_site: Any) -> None:
    got = spec(
        make_site,
        host="root_disk: {min_size: 1TiB, rotational: false}\n",
        role="root_disk: {min_size: 100GB, max_size: 2TB, rotational: true, model: PM9A3}\n",
    )
    assert got.root_disk == {
        "serial": None,
        "wwn": None,
        "model": "PM9A3",
        "min_size": 1 << 40,
        "max_size": 2 * 10**12,
        "rotational": False,
        "by_path": None,
    }
    RootDisk(**got.root_disk)  # type: ignore[arg-type]  # the wire's fields, exactly


CREDENTIALS = """\
credentials:
  - {match: {name: "b*"}, ref: "env:GLOB"}
  - {match: {vendor: Dell, labels: {tier: front}}, ref: "vault:kv/bmc/{{ serial }}"}
  - {match: {pool: p, model: r750}, ref: "file:secrets/{{ name }}.yaml"}
  - {match: {labels: {rack: r9}}, ref: "keyring:bmc"}
"""


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("credentials: 'env:OWN'\nvendor: dell\nserial: X1\nlabels: {tier: front}\n", "env:OWN"),
        ("vendor: dell\nserial: X1\nlabels: {tier: front}\n", "vault:kv/bmc/X1"),
        ("vendor: dell\nserial: X1\nmodel: R750\n", "file:{root}/secrets/a.yaml"),
        ("credentials: 'file:/etc/bmc'\n", "file:/etc/bmc"),
        ("location: {rack: r9}\n", "keyring:bmc"),
        ("", None),
    ],
)
def test_credentials(host: str, expected: str | None, make_site: Any, tmp_path: Path) -> None:
    got = spec(make_site, host=host, site=CREDENTIALS).credentials
    assert got == (expected and expected.replace("{root}", str(tmp_path / "site")))


def test_a_rule_that_needs_a_serial(make_site: Any) -> None:
    with pytest.raises(TemplateError, match="'serial' is undefined"):
        spec(make_site, host="vendor: dell\nlabels: {tier: front}\n", site=CREDENTIALS)


def test_a_reference_is_rendered_in_a_sandbox(make_site: Any) -> None:
    with pytest.raises(TemplateError):
        spec(make_site, host='credentials: "env:{{ name.__class__.__mro__[1].__subclasses__() }}"\n')


def test_tls_and_proxy(make_site: Any, tmp_path: Path) -> None:
    pin = ":".join(["ab"] * 32)
    site = "tls: {ca: ca.pem}\nbmc: {proxy: 'socks5://bastion:1080', connect_timeout: 500ms}\n"
    got = spec(make_site, site=site, ca_pem="")
    assert (got.tls.ca, got.tls.fingerprint) == (str(tmp_path / "site/ca.pem"), None)
    assert (got.proxy, got.connect_timeout) == ("socks5://bastion:1080", 0.5)
    own = spec(make_site, site=site, host=f"tls: {{fingerprint: '{pin}'}}\nbmc_proxy: 'http://other:1'\n", ca_pem="")
    assert (own.tls.ca, own.tls.fingerprint, own.proxy) == (None, pin, "http://other:1")
    assert spec(make_site, site=site, host="bmc_proxy: direct\n", ca_pem="").proxy is None


def test_templates(make_site: Any) -> None:
    got = spec(make_site, role="config: {user-data: u.j2}\n", templates__u_j2="#cloud-config\n")
    assert got.templates == {"user-data": "#cloud-config\n"}
    assert got.template_files == {"user-data": "templates/u.j2"}


def test_an_unknown_host(make_site: Any) -> None:
    folder = make_site({"hosts/a.yaml": "{name: r12-u07, bmc: 'redfish+https://10.0.0.1'}"})
    with pytest.raises(NotFound, match="no host 'r12-u70'") as caught:
        resolve(load(folder), "r12-u70", root=folder)
    assert caught.value.hint == "did you mean r12-u07?"
    with pytest.raises(NotFound) as caught:
        resolve(load(folder), "x", root=folder)
    assert "host list" in caught.value.hint


def test_all(make_site: Any) -> None:
    folder = make_site({"hosts/a.yaml": "- {name: b, bmc: 'ipmi://10.0.0.1'}\n- {name: a, bmc: 'ipmi://10.0.0.2'}\n"})
    docs = load(folder)
    specs = resolve_all(docs, root=folder)
    assert list(specs) == ["b", "a"]
    assert all(resolve(docs, name, root=folder) == s for name, s in specs.items())


def test_a_spec_survives_json(make_site: Any) -> None:
    """The engine keeps it with the run."""
    got = spec(make_site, host="vars: {x: [1, {y: null}]}\nnetwork: {dns: ['10.0.0.1']}\n")
    assert msgspec.json.decode(msgspec.json.encode(got), type=HostSpec) == got


NETWORKS = st.builds(
    Network,
    address=st.sampled_from([None, "10.0.0.1/24"]),
    mtu=st.sampled_from([None, 1500, 9000]),
    dns=st.sampled_from([[], ["10.0.0.1"], ["10.0.0.2"]]),
)


@given(NETWORKS, NETWORKS)
def test_combine(first: Network, second: Network) -> None:
    both = combine(first, second, Network)
    for field in Network.__struct_fields__:
        mine, theirs = getattr(first, field), getattr(second, field)
        assert getattr(both, field) == (mine or theirs)
    assert combine(first, None, Network) == combine(None, first, Network) == first


def test_every_field_of_a_role_reaches_the_spec() -> None:
    """A new field of a role must not be forgotten in `resolve`."""
    source = Path(resolve.__code__.co_filename).read_text()
    known_by = {"image", "network", "root_disk"}  # combined under other words
    for field in set(Role.__struct_fields__) - known_by:
        assert re.search(rf"\brest\.{field}\b", source), field


@pytest.mark.parametrize(
    ("text", "number"), [("500ms", 0.5), ("30s", 30), ("10m", 600), ("1h", 3600), ("2d", 172800), ("0s", 0)]
)
def test_seconds(text: str, number: float) -> None:
    assert units.seconds(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [("1B", 1), ("1KB", 1000), ("1KiB", 1024), ("1.5GB", 1_500_000_000), ("1 TiB", 1 << 40), ("0.1GB", 100_000_000)],
)
def test_sizes(text: str, number: int) -> None:
    assert units.size_bytes(text) == number


@pytest.mark.parametrize("text", ["", "1", "GB", "-1GB", "1gb", "1.GB", "1PB"])
def test_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="no size"):
        units.size_bytes(text)
    with pytest.raises(ValueError, match="no duration"):
        units.seconds(text)


@pytest.mark.parametrize(
    ("written", "word", "methods"),
    [
        ("", "auto", ()),
        ("boot: auto", "auto", ()),
        ("boot: pxe", "pxe", ("pxe",)),
        ("boot: [pxe, virtual-media]", "auto", ("pxe", "virtual-media")),
    ],
)
def test_how_it_is_booted(make_site: Any, written: str, word: str, methods: tuple[str, ...]) -> None:
    got = spec(make_site, role=written)
    assert (got.boot, got.methods) == (word, methods)


@pytest.mark.parametrize("written", ["boot: floppy", "boot: [pxe, auto]", "boot: [pxe, onie]"])
def test_what_is_no_boot_method(make_site: Any, written: str) -> None:
    with pytest.raises(SiteError, match="boot"):
        spec(make_site, role=written)
