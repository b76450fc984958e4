"""What documents say of run-time config and of the load of images: a role's `apply`, `secret()` in templates, `boot:`."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from metalimmu.desired.check import check
from metalimmu.desired.load import load
from metalimmu.desired.render import named, render
from metalimmu.desired.resolve import resolve
from metalimmu.desired.types import BootSettings, HostSpec
from metalimmu.desired.units import bytes_per_second
from metalimmu.errors import SiteError, TemplateError

HOST = {"hosts/a.yaml": "name: a\nbmc: 'redfish+https://10.0.0.1'\nrole: web\n"}


def spec(make_site: Any, role: str = "", template: str = "") -> HostSpec:
    files = {**HOST, "roles/web.yaml": f"image: web@2\n{role}"}
    if template:
        files |= {"roles/web.yaml": "image: web@2\nconfig: {user-data: t.j2}\n", "templates/t.j2": template}
    folder = make_site(files)
    return resolve(load(folder), "a", root=folder)


@pytest.mark.parametrize(
    ("role", "argv"),
    [
        ("", ()),
        ("apply: /usr/local/sbin/reload --all 'two words'\n", ("/usr/local/sbin/reload", "--all", "two words")),
        ("apply: [/usr/local/sbin/reload, a b]\n", ("/usr/local/sbin/reload", "a b")),
    ],
)
def test_the_command_of_a_role(make_site: Any, role: str, argv: tuple[str, ...]) -> None:
    assert spec(make_site, role).apply == argv


@pytest.mark.parametrize("apply", ["reload", "./reload", "''", "[]", '"/x \'unclosed"'])
def test_commands_that_are_none(make_site: Any, apply: str) -> None:
    with pytest.raises(SiteError) as caught:
        spec(make_site, f"apply: {apply}\n")
    assert "roles/web.yaml" in caught.value.problems[0]
    assert "apply" in caught.value.problems[0]


def test_a_secret_is_named_where_nobody_needs_it(make_site: Any) -> None:
    template = "#cloud-config\na: {{ secret('vault:kv/web/' ~ name ~ '#token') | tojson }}\n"
    given = spec(make_site, template=template)
    assert render(given, controller={})["user-data"] == '#cloud-config\na: "(secret vault:kv/web/a#token)"\n'
    told = render(given, controller={}, secret=lambda ref: {"vault:kv/web/a#token": 'it\'s "quoted"'}[ref])
    assert told["user-data"] == '#cloud-config\na: "it\\u0027s \\"quoted\\""\n'


@pytest.mark.parametrize(
    "ref", ["hunter2", "", "vault:", "vault: x", "env:A)", "http://x", "env:A\nB", "file:" + "x" * 600]
)
def test_what_is_no_reference_is_not_shown(ref: str) -> None:
    with pytest.raises(TemplateError) as caught:
        named(ref)
    assert "hunter2" not in caught.value.message


def test_check_says_where_a_reference_is_wrong(make_site: Any) -> None:
    folder = make_site(
        {
            **HOST,
            "roles/web.yaml": "image: web@2\nconfig: {user-data: t.j2}\n",
            "templates/t.j2": "#cloud-config\na: {{ secret('hunter2') }}\n",
        }
    )
    (problem,) = check(folder).problems
    assert (problem.file, problem.line) == ("templates/t.j2", 2)
    assert "secret() wants a reference" in problem.got
    assert "hunter2" not in str(problem)


def test_hooks_have_secrets_of_their_own(make_site: Any) -> None:
    folder = make_site(
        {**HOST, "roles/web.yaml": "image: web@2\nhooks: {before: [\"/bin/true {{ secret('env:A') }}\"]}\n"}
    )
    assert any("secret" in str(p) for p in check(folder).problems)


@pytest.mark.parametrize("name", ["metalimmu.json", "metalimmu.salt"])
def test_file_names_that_are_ours(make_site: Any, name: str) -> None:
    folder = make_site({**HOST, "roles/web.yaml": f"image: web@2\nconfig: {{{name}: t.j2}}\n", "templates/t.j2": "x"})
    with pytest.raises(SiteError) as caught:
        load(folder)
    assert "a file name of the seed" in "".join(caught.value.problems)


@pytest.mark.parametrize(
    ("text", "rate"), [("100MB/s", 1e8), ("1.5 MiB/s", 1.5 * 1024**2), ("10GB/s", 1e10), ("500B/s", 500.0)]
)
def test_rates(text: str, rate: float) -> None:
    assert bytes_per_second(text) == rate
    assert msgspec.convert({"per_rack": text, "agents": 20}, BootSettings).per_rack == text


@pytest.mark.parametrize(
    "document",
    [
        *({"per_rack": rate} for rate in ("100MB", "0MB/s", "0.0MB/s", "100/s", 100)),
        *({"agents": count} for count in (0, -1, "20")),
        {"agent": 20},
    ],
)
def test_limits_that_are_none(document: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(document, BootSettings)


@pytest.mark.parametrize("text", ["0B/s", "100MB", "MB/s", "1MB/m", "-1MB/s", ""])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        bytes_per_second(text)
