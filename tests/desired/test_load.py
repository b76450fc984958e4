"""Every case file: the documents of a site, and each line that must be said about them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from metalimmu.desired import documents
from metalimmu.desired.load import examine, load
from metalimmu.desired.types import Host, Location, Network
from metalimmu.errors import SiteError

CASES = [
    pytest.param(case, id=f"{path.stem}: {case['case']}")
    for path in sorted((Path(__file__).parent / "cases").glob("*.yaml"))
    for case in yaml.safe_load(path.read_text())
]


@pytest.mark.parametrize("case", CASES)
def test_case(case: dict[str, Any], make_site: Any) -> None:
    site = make_site(case["files"])
    lines = [str(p) for p in examine(site).problems]
    assert lines == case["problems"]
    if lines:
        with pytest.raises(SiteError) as caught:
            load(site)
        assert list(caught.value.problems) == lines
        assert str(len(lines)) in caught.value.message
    else:
        load(site)


def test_all_forms_of_hosts_give_the_same(make_site: Any) -> None:
    site = make_site(
        {
            "hosts/list.yaml": "- {name: a, bmc: 'redfish+https://10.0.0.1', nics: ['00:00:00:00:00:0a'], "
            "location: {rack: r1, u: 7}, network: {address: 10.1.0.1/24, dns: [10.1.0.53]}, protected: true, "
            "labels: {tier: front}, vars: {x: '1'}}",
            "hosts/one.yaml": "name: b\nbmc: 'redfish+https://10.0.0.2'\n",
            "hosts/table.csv": "\ufeffname,bmc,nics,location.rack,location.u,network.address,network.dns,protected,labels.tier,vars.x\n"
            "c,redfish+https://10.0.0.3, 00:00:00:00:00:0c ,r1,7,10.1.0.3/24,10.1.0.53,yes,front,1\n\n"
            "d,redfish+https://10.0.0.4,,,,,,,,\n",
        }
    )
    docs = load(site)
    rest: dict[str, Any] = {"location": Location(rack="r1", u=7), "protected": True, "labels": {"tier": "front"}}
    rest["vars"] = {"x": "1"}

    def full(name: str, i: int) -> Host:
        network = Network(address=f"10.1.0.{i}/24", dns=["10.1.0.53"])
        return Host(
            name=name, bmc=f"redfish+https://10.0.0.{i}", nics=[f"00:00:00:00:00:0{name}"], network=network, **rest
        )

    assert docs.hosts == {
        "a": full("a", 1),
        "b": Host(name="b", bmc="redfish+https://10.0.0.2"),
        "c": full("c", 3),
        "d": Host(name="d", bmc="redfish+https://10.0.0.4"),
    }
    assert {n: docs.files["host", n] for n in "abcd"} == {
        "a": "hosts/list.yaml", "b": "hosts/one.yaml", "c": "hosts/table.csv", "d": "hosts/table.csv",
    }  # fmt: skip


def test_everything_else_is_there(make_site: Any) -> None:
    digest = "sha256:" + "a" * 64
    docs = load(
        make_site(
            {
                "roles/web.yaml": "image: web@1\nprofile: own\n",
                "pools/p.yaml": "mode: read-write\n",
                "profiles/own.yaml": "bios: {}\n",
                "templates/x.j2": "x",
                "templates/sub/y.j2": "y",
                "hosts/a.yaml": "- {name: a, bmc: 'redfish+https://10.0.0.1'}",
                "holds.yaml": "- {host: a, image: web@0, reason: slow, since: '2026-11-03'}",
                "images.lock": f"web@1: {digest}\n",
            }
        )
    )
    assert docs.site.name == "ams1"
    assert docs.roles["web"].image == "web@1"
    assert docs.pools["p"].mode == "read-write"
    assert "own" in docs.profiles
    assert docs.templates == {"x.j2": "x", "sub/y.j2": "y"}
    assert docs.holds["a"].image == "web@0"
    assert docs.lock == {"web@1": digest}
    assert docs.files["role", "web"] == "roles/web.yaml"


def test_no_site(tmp_path: Path) -> None:
    with pytest.raises(SiteError) as caught:
        load(tmp_path)
    assert caught.value.problems == (
        f"site.yaml:1: expected the file, got no such file: `metalimmu init {tmp_path}` makes a site",
    )


def test_bytes_that_are_no_text(make_site: Any) -> None:
    site = make_site({"hosts/a.yaml": "", "hosts/b.csv": "", "templates/t.j2": ""})
    for name in ("hosts/a.yaml", "hosts/b.csv", "templates/t.j2"):
        (site / name).write_bytes(b"first\n\xff")
    (site / "hosts/c.yaml").write_bytes(b"- name: a\n  serial: \x07\n")
    assert [str(p) for p in examine(site).problems] == [
        "hosts/a.yaml:2: expected UTF-8 text, got the byte 0xff: save the file as UTF-8",
        "hosts/b.csv:2: expected UTF-8 text, got the byte 0xff: save the file as UTF-8",
        "hosts/c.yaml:2: expected valid YAML, got the character U+0007: remove it, or quote and escape it",
        "templates/t.j2:2: expected UTF-8 text, got the byte 0xff: save it as UTF-8",
    ]


def test_what_is_no_file_does_not_hang(make_site: Any) -> None:
    site = make_site({})
    (site / "hosts/dir.yaml").mkdir(parents=True)
    os.mkfifo(site / "hosts/pipe.yaml")
    assert [str(p) for p in examine(site).problems] == [
        f"hosts/{name}.yaml:1: expected a file that can be read, got not a regular file: check its permissions"
        for name in ("dir", "pipe")
    ]


def test_too_large(make_site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site = make_site({"hosts/a.yaml": "- {name: a, bmc: 'redfish+https://10.0.0.1'}" + " " * (2 << 20)})
    monkeypatch.setattr(documents, "MAX_BYTES", 1 << 20)
    monkeypatch.setattr("metalimmu.desired.load._read.__defaults__", (1 << 20,))
    assert [str(p) for p in examine(site).problems] == [
        "hosts/a.yaml:1: expected at most 1 MiB, got 2 MiB: split it into several files"
    ]


@pytest.mark.parametrize("text", ["[" * 300_000, "- " * 300_000, "{a: " * 300_000, "? " * 300_000])
def test_depth_is_bounded(text: str, make_site: Any) -> None:
    """Without a bound libyaml's composer overflows the stack, and the process is gone."""
    problems = examine(make_site({"hosts/a.yaml": text})).problems
    assert [(p.line, p.got) for p in problems] == [(1, "more than 100 levels")]


def test_a_long_chain_of_merges_is_bounded(make_site: Any) -> None:
    chain = "- &a0 {x: 1}\n" + "".join(f"- &a{i} {{<<: *a{i - 1}}}\n" for i in range(1, 5000))
    problems = examine(make_site({"hosts/a.yaml": chain})).problems
    assert [p.got for p in problems] == ["aliases that make more than 100 levels"]


def test_one_bad_host_of_many(make_site: Any) -> None:
    hosts = "".join(f"- {{name: n{i}, bmc: 'redfish+https://10.0.{i >> 8}.{i & 255}'}}\n" for i in range(1000))
    examined = examine(
        make_site(
            {
                "hosts/a.yaml": hosts + "- {name: bad, bmc: 5}\n",
                "holds.yaml": "- {host: gone, image: a@1, reason: x, since: x}",
            }
        )
    )
    assert [str(p) for p in examined.problems] == [
        (
            "hosts/a.yaml:1001: bad.bmc: expected a BMC address: redfish+https://ADDRESS[:PORT], redfish+http:// or "
            'ipmi://, got a number 5: write "redfish+https://10.12.0.7"'
        )
    ]
    assert len(examined.found.hosts) == 1000


def test_a_good_site_never_composes_for_lines(make_site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps 10,000 hosts within twice the time of the bare parse: lines are looked for only when something is wrong."""
    files = {"hosts/a.yaml": "- &a {name: a, bmc: 'ipmi://10.0.0.1'}\n- {name: b, bmc: 'ipmi://10.0.0.2'}\n"}
    site = make_site({**files, "roles/web.yaml": "image: web@1", "hosts/c.csv": "name,bmc\nc,ipmi://10.0.0.3\n"})

    def again(_data: bytes) -> None:
        raise AssertionError("composed again")

    monkeypatch.setattr(documents, "compose", again)
    assert list(load(site).hosts) == ["a", "b", "c"]
