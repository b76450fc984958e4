"""discover, import, bmc: as somebody types them who has a list of addresses and no site."""

from __future__ import annotations

import json
import ssl
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent.parent / "conformance"))

from redfish_server import PASSWORD, USER, RedfishServer, certificate, small_tree

from metalimmu.main import run

Said = pytest.CaptureFixture[str]
SITE = """\
name: demo
urls: {bmc: "http://127.0.0.1:1", machines: "https://127.0.0.1:2"}
credentials: [{match: {}, ref: "env:GOOD"}]
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, password in (("GOOD", PASSWORD), ("WRONG", "guessed")):
        monkeypatch.setenv(f"{name}_USERNAME", USER)
        monkeypatch.setenv(f"{name}_PASSWORD", password)


@pytest.fixture
def bmcs(tmp_path: Path) -> Iterator[list[RedfishServer]]:
    """Four servers of which one has another BIOS setting, each with a serial number of its own."""
    with ExitStack() as stack:
        context: ssl.SSLContext
        context, _, _ = stack.enter_context(certificate(tmp_path))
        servers = []
        for i in range(4):
            tree = small_tree()
            tree["/redfish/v1/systems/1"].update(SerialNumber=f"SN{i}", Manufacturer="Dell Inc.")
            tree["/redfish/v1/systems/1/bios"]["Attributes"]["ProcTurbo"] = "Disabled" if i == 3 else "Enabled"
            servers.append(stack.enter_context(RedfishServer(tree, tls=context)))
        yield servers


def listed(bmcs: list[RedfishServer]) -> str:
    Path("bmcs.txt").write_text("# ours\n" + "".join(f"127.0.0.1:{s.port}\n" for s in bmcs))
    return "bmcs.txt"


def nothing_written(bmcs: list[RedfishServer]) -> None:
    for server in bmcs:
        assert server.writes == []
        assert server.sessions == {}
        others = [(m, p) for m, p in server.requests if m not in ("GET", "HEAD") and "/Sessions" not in p]
        assert others == []


def test_the_first_minute(bmcs: list[RedfishServer], capsys: Said) -> None:
    """A list of addresses, then who they are, then which of them is unlike the others. No site, nothing written."""
    assert run(["discover", listed(bmcs), "--rate", "1000/s"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0].split()[:2] == ["ADDRESS", "MAKE"]
    assert len(said.out.splitlines()) == 5
    assert "4 BMCs with Redfish" in said.err
    assert all(s.logins == [] for s in bmcs)

    words = [
        "discover",
        "bmcs.txt",
        "--rate",
        "1000/s",
        "--credentials",
        "env:GOOD",
        "--write",
        "found.yaml",
        "-o",
        "json",
    ]
    assert run(words) == 0
    said = capsys.readouterr()
    rows = json.loads(said.out)
    assert [r["serial"] for r in sorted(rows, key=lambda r: r["serial"])] == ["SN0", "SN1", "SN2", "SN3"]
    assert "scan --inventory" in said.err
    assert [len(s.logins) for s in bmcs] == [1] * 4
    hosts = yaml.safe_load(Path("found.yaml").read_text())
    assert {h["serial"]: h["vendor"] for h in hosts} == {f"SN{i}": "dell" for i in range(4)}

    assert run(["scan", "--inventory", "found.yaml", "--max-unknown", "100%"]) == 0
    said = capsys.readouterr()
    assert "bios.ProcTurbo" in said.out
    assert "sn3" in said.out
    nothing_written(bmcs)


def test_one_certificate_on_two_machines_is_said(bmcs: list[RedfishServer], capsys: Said) -> None:
    assert run(["discover", f"127.0.0.1:{bmcs[0].port}", f"localhost:{bmcs[1].port}"]) == 0
    assert "2 BMCs have one and the same certificate" in capsys.readouterr().err


def test_wrong_passwords_stop_and_what_was_seen_is_kept(bmcs: list[RedfishServer], capsys: Said) -> None:
    words = ["discover", listed(bmcs), "--credentials", "env:WRONG", "--max-refused", "2", "--write", "found.yaml"]
    assert run(words) == 1
    said = capsys.readouterr()
    assert sum(len(s.logins) for s in bmcs) == 2
    assert "stopped logging in after 2 refused logins" in said.err
    assert len(yaml.safe_load(Path("found.yaml").read_text())) == 4
    nothing_written(bmcs)


def test_into_a_site_where_a_host_is_known(bmcs: list[RedfishServer], capsys: Said) -> None:
    Path("hosts").mkdir()
    Path("site.yaml").write_text(SITE)
    mine = f"# mine\n- name: web-1\n  bmc: redfish+https://127.0.0.1:{bmcs[0].port}  # do not touch\n"
    Path("hosts/mine.yaml").write_text(mine)
    words = ["discover", listed(bmcs), "--credentials", "env:GOOD", "--write", "hosts/discovered.yaml"]
    assert run(words) == 0
    assert "filled     hosts/mine.yaml: web-1.serial: SN0" in capsys.readouterr().err
    text = Path("hosts/mine.yaml").read_text()
    assert "# mine" in text
    assert "# do not touch\n" in text
    assert "serial: SN0" in text
    assert len(yaml.safe_load(Path("hosts/discovered.yaml").read_text())) == 3
    assert "credentials" not in Path("hosts/discovered.yaml").read_text()  # the site has a rule
    assert run(["check"]) == 0
    assert capsys.readouterr().out.startswith("4 hosts")

    assert run(["bmc", "probe"]) == 0
    table = capsys.readouterr().out
    assert table.splitlines()[0].split() == ["CAPABILITY", "DELL", "ALL"]
    assert "4 yes" in table
    assert run(["bmc", "probe", "web-1", "-o", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    answers = {a["capability"]: a for a in row["probe"]["answers"]}
    assert answers["virtual_media"]["answer"] == "yes"
    assert answers["virtual_media"]["source"].endswith("/VirtualMedia/CD1")
    assert answers["licence"]["answer"] == "unknown"
    assert run(["bmc", "probe", "--why", "http_boot"]) == 0
    assert "UefiHttp" in capsys.readouterr().out
    assert run(["bmc", "probe", "--why", "http_bot"]) == 2
    assert "http_boot" in capsys.readouterr().err
    nothing_written(bmcs)


def test_a_probe_of_wrong_passwords_stops_and_keeps_no_answers(
    bmcs: list[RedfishServer], capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    from metalimmu.service.site import OpenSite

    Path("hosts").mkdir()
    Path("site.yaml").write_text(SITE.replace("env:GOOD", "env:WRONG"))
    hosts = [
        {"name": f"h{i}", "bmc": f"redfish+https://127.0.0.1:{s.port}", "tls": {"verify": False}}
        for i, s in enumerate(bmcs)
    ]
    Path("hosts/all.yaml").write_text(yaml.safe_dump([*hosts, {"name": "old", "bmc": "ipmi://127.0.0.1:9"}]))
    assert run(["bmc", "probe", "--max-refused", "2"]) == 1
    said = capsys.readouterr()
    assert "2 BMCs were not asked" in said.err
    assert sum(len(s.logins) for s in bmcs) == 2
    assert "5 unknown" in said.out
    assert said.err.count("refused user") == 2
    opened = OpenSite(Path())
    kept = {h: opened.store.observation(h, "probe") for h in ("h0", "h1", "h2", "h3", "old")}
    opened.close()
    assert sum(k is not None for k in kept.values()) == 3  # two refusals, and the one that cannot say
    assert kept["old"] is not None


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["discover", "10.0.0.0/8"], 2, "--yes"),
        (["discover", "nonsense//"], 2, "no network"),
        (["discover", "127.0.0.1:1", "--rate", "fast"], 2, "--rate"),
        (["discover", "127.0.0.1:1", "--credentials", "env:NOBODY"], 1, "NOBODY_USERNAME"),
        (["discover", "127.0.0.1:1", "--write", "x.csv"], 2, "YAML"),
        (["import", "netbox", "none.json"], 2, "cannot be read"),
        (["import", "netbox", "https://user:pw@netbox"], 2, "login"),
        (["bmc", "roles", "del"], 2, "dell"),
    ],
)
def test_mistakes(words: list[str], status: int, said: str, capsys: Said) -> None:
    assert run(words) == status
    assert said in capsys.readouterr().err


def test_import_netbox(capsys: Said) -> None:
    devices = [
        {"id": 1, "name": "r1-u1", "serial": "S1", "oob_ip": {"address": "10.0.0.1/24"}, "site": {"slug": "ams1"}},
        {"id": 2, "name": "r1-u2", "serial": "S2", "oob_ip": None, "site": {"slug": "ams1"}},
        {"id": 3, "name": "r9-u1", "serial": "S3", "oob_ip": {"address": "10.0.0.3/24"}, "site": {"slug": "fra1"}},
    ]
    Path("export.json").write_text(json.dumps({"results": devices}))
    words = ["import", "netbox", "export.json", "--only", "site=ams1", "--write", "hosts/netbox.yaml"]
    assert run([*words, "--dry-run"]) == 0
    assert "would write" in capsys.readouterr().err
    assert not Path("hosts/netbox.yaml").exists()
    assert run(words) == 0
    said = capsys.readouterr().err
    assert "new        r1-u1 at redfish+https://10.0.0.1" in said
    assert "left out   r1-u2" in said
    (host,) = yaml.safe_load(Path("hosts/netbox.yaml").read_text())
    assert host["labels"] == {"site": "ams1"}
    assert run(words) == 0
    assert "nothing to write" in capsys.readouterr().err


def test_import_ansible(capsys: Said) -> None:
    Path("inventory.ini").write_text("[web]\nweb[1:2] my_bmc=10.0.0.9\nweb2 my_bmc=10.0.0.10\nweb3\n")
    assert run(["import", "ansible", "inventory.ini", "--bmc-var", "my_bmc", "--write", "h.yaml"]) == 0
    assert "left out   web3" in capsys.readouterr().err
    hosts = yaml.safe_load(Path("h.yaml").read_text())
    assert [(h["name"], h["bmc"], h["labels"]) for h in hosts] == [
        ("web1", "redfish+https://10.0.0.9", {"web": "true"}),
        ("web2", "redfish+https://10.0.0.10", {"web": "true"}),
    ]


def test_roles(capsys: Said) -> None:
    assert run(["bmc", "roles"]) == 0
    text = capsys.readouterr().out
    assert "ReadOnly" in text
    assert "unseen" in text
    assert run(["bmc", "roles", "dell", "-o", "json"]) == 0
    (role,) = json.loads(capsys.readouterr().out)
    assert role["sources"]


def test_help_names_them(capsys: Said) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert "discover" in text
    assert "import" in text
    assert run(["bmc", "--help"]) == 0
    assert "record" in capsys.readouterr().out


def test_without_a_site_a_wrong_password_is_tried_once_by_all_commands(bmcs: list[RedfishServer], capsys: Said) -> None:
    words = ["--credentials", "env:WRONG", "--no-verify"]
    Path("one.txt").write_text(f"127.0.0.1:{bmcs[0].port}\n")
    assert run(["scan", "--inventory", "one.txt", *words]) == 4
    assert run(["scan", "--inventory", "one.txt", *words]) == 4
    assert run(["discover", "one.txt", "--credentials", "env:WRONG", "--rate", "1000/s"]) == 0
    said = capsys.readouterr()
    assert len(bmcs[0].logins) == 1
    assert "--retry-login" in said.err + said.out
    # Another password is another version; the account that was unlocked is for the operator to say.
    assert run(["scan", "--inventory", "one.txt", "--credentials", "env:GOOD", "--no-verify"]) == 0
    assert run(["scan", "--inventory", "one.txt", *words, "--retry-login"]) == 4
    assert run(["discover", "one.txt", "--credentials", "env:WRONG", "--rate", "1000/s", "--retry-login"]) == 0
    assert [p for _, p in bmcs[0].logins] == ["guessed", PASSWORD, "guessed", "guessed"]


def test_a_site_with_a_proxy_is_discovered_through_it(bmcs: list[RedfishServer], capsys: Said) -> None:
    """And networks take ports."""
    Path("site.yaml").write_text(SITE + 'bmc: {proxy: "socks5://127.0.0.1:1"}\n')
    assert run(["discover", f"127.0.0.0/30:{bmcs[0].port}", "--rate", "1000/s"]) == 1
    assert "no TCP connection to the proxy 127.0.0.1:1" in capsys.readouterr().err
    Path("site.yaml").write_text(SITE)
    assert run(["discover", f"127.0.0.0/30:{bmcs[0].port}", "--rate", "1000/s"]) == 0
    assert "1 BMC with Redfish" in capsys.readouterr().err
    assert run(["discover", "127.0.0.1", "--port", str(bmcs[0].port), "--port", str(bmcs[1].port), "-o", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2
