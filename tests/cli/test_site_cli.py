"""init, check and schema as an operator types them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import yaml

from metalimmu import paths
from metalimmu.desired import types
from metalimmu.desired.check import check
from metalimmu.desired.schema import KINDS, comments, schema
from metalimmu.desired.starter import site_name
from metalimmu.main import run


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    folder = tmp_path / "ams1"
    assert run(["init", str(folder)]) == 0
    capsys.readouterr()
    return folder


def test_init_writes_a_site_that_passes_its_own_check(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "--site", str(site)]) == 0
    said = capsys.readouterr()
    assert said.out == "2 hosts, 2 roles: no errors\n"
    assert said.err == ""
    assert yaml.safe_load((site / "site.yaml").read_text())["name"] == "ams1"
    assert "/.metalimmu/" in (site / ".gitignore").read_text()


def test_the_example_that_ships_passes_too() -> None:
    report = check(paths.data("profiles") / "example-site")
    assert report.problems == ()
    assert report.hosts == 2


def test_every_document_names_its_schema(site: Path) -> None:
    """Editors with the YAML language server then complete and check while one types."""
    documents = sorted(site.rglob("*.yaml"))
    assert len(documents) >= 5
    for path in documents:
        first = path.read_text().splitlines()[0]
        name = first.removeprefix("# yaml-language-server: $schema=")
        assert name != first, path
        assert json.loads((path.parent / name).read_text())["$schema"]


def test_init_never_overwrites(tmp_path: Path, site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (site / "site.yaml").read_text()
    assert run(["init", str(site)]) == 2
    assert "has a site.yaml already" in capsys.readouterr().err
    assert (site / "site.yaml").read_text() == before
    half = tmp_path / "half"
    (half / "roles").mkdir(parents=True)
    (half / "roles/web.yaml").write_text("image: mine@1\n")
    (half / "README.md").write_text("mine\n")
    assert run(["init", str(half)]) == 0
    assert f"kept  {half / 'roles/web.yaml'}: it was there" in capsys.readouterr().out
    assert (half / "roles/web.yaml").read_text() == "image: mine@1\n"


def test_init_where_nothing_can_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run(["init", str(tmp_path / "file/site")]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("ams1", "ams1"),
        ("My Site!", "my-site"),
        ("2024", '"2024"'),
        ("on", '"on"'),
        ("---", "my-site"),
        ("x" * 99, "x" * 63),
    ],
)
def test_the_sites_name(folder: str, name: str, tmp_path: Path) -> None:
    assert site_name(tmp_path / folder) == name
    msgspec.convert(yaml.safe_load(f"name: {name}")["name"], types.Name)


def test_check_prints_every_problem(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site / "hosts/x.yaml").write_text("- {name: x, bmc: 'redfish+https://10.0.0.1', serial: 2.10, role: wbe}\n")
    (site / "roles/web.yaml").write_text("image: web@1\nconfg: {}\n")
    lines = [
        'hosts/x.yaml:1: x.serial: expected text, got a number 2.1: write "2.10" in quotes',
        'hosts/x.yaml:1: x.role: expected the name of a file in roles/, got "wbe": write web',
        'roles/web.yaml:2: confg: expected a known field, got "confg": write config',
    ]
    assert run(["check", "--site", str(site)]) == 2
    said = capsys.readouterr()
    assert said.out.splitlines() == lines
    assert "3 problems" in said.err
    assert run(["--site", str(site), "check", "-o", "json"]) == 2
    rows = json.loads(capsys.readouterr().out)
    assert rows[0] == {
        "file": "hosts/x.yaml", "line": 1, "field": "x.serial", "expected": "text", "got": "a number 2.1", "write": 'write "2.10" in quotes',
    }  # fmt: skip
    assert len(rows) == 3


def test_check_json_of_a_clean_site_is_an_empty_list(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "--site", str(site), "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_tls_off_is_said_aloud(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = site / "hosts/r12.yaml"
    path.write_text(
        path.read_text()
        .replace("role: build", "role: build\n  tls: {verify: false}")
        .replace("tls: {fingerprint", "# {fingerprint")
    )
    assert run(["check", "--site", str(site)]) == 0
    said = capsys.readouterr()
    assert "warning: TLS is OFF" in said.err
    assert "r12-u08" in said.err


def test_an_undefined_variable_is_found_before_a_machine_is_touched(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = site / "templates/user-data.j2"
    path.write_text(path.read_text() + "proxy: {{ vars.proxy }}\n")
    assert run(["check", "--site", str(site)]) == 2
    out = capsys.readouterr().out
    assert f"templates/user-data.j2:{len(path.read_text().splitlines())}: r12-u07: " in out
    assert "vars.proxy" in out


def test_check_outside_of_a_site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "--site", str(tmp_path)]) == 2
    assert "has no site.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_schema(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema", kind]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == schema(kind)
    names = json.dumps(printed)
    for pointer in {p.split('"')[0] for p in names.split('"$ref": "#/$defs/')[1:]}:
        assert pointer in printed["$defs"]


def test_schema_says_what_fields_are_for() -> None:
    host = schema("host")["$defs"]["Host"]
    assert host["properties"]["system"]["description"] == "Redfish system id, where a BMC has several"
    assert host["additionalProperties"] is False
    assert set(host["required"]) == {"name", "bmc"}
    assert host["properties"]["nics"]["items"]["examples"]
    assert comments(types.Tls)["verify"] == "false is said aloud by every command"


def test_an_unknown_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema", "hots"]) == 2
    assert "no document 'hots'" in capsys.readouterr().err


def test_schema_to_a_file(tmp_path: Path) -> None:
    assert run(["schema", "pool", "--out", str(tmp_path / "pool.json")]) == 0
    assert json.loads((tmp_path / "pool.json").read_text()) == schema("pool")


def test_commands_import_no_templates_or_documents() -> None:
    """`metalimmu --help` pays for click and nothing else of ours."""
    code = "import sys, metalimmu.cli.site; print([m for m in ('yaml', 'jinja2', 'msgspec') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
