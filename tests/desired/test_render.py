"""Golden text of run-time config, and every way in which a template is wrong."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from metalimmu.desired.load import load
from metalimmu.desired.render import attempt, digest, render
from metalimmu.desired.resolve import resolve
from metalimmu.desired.types import Host, HostSpec, Role, Site, SiteDocs, Urls
from metalimmu.errors import TemplateError

GOLDEN = yaml.safe_load((Path(__file__).parent / "golden-network.yaml").read_text())
CONTROLLER = {"url": "https://10.1.0.5:8443", "deployment": "d1"}


def one(make_site: Any, host: str = "", template: str | None = None, file: str = "user-data") -> HostSpec:
    files = {"hosts/a.yaml": f"name: r12-u07\nbmc: 'redfish+https://10.0.0.1'\nrole: web\n{host}"}
    files["roles/web.yaml"] = "image: web@2\n" + (f"config: {{{file}: t.j2}}\n" if template is not None else "")
    if template is not None:
        files["templates/t.j2"] = template
    folder = make_site(files)
    return resolve(load(folder), "r12-u07", root=folder)


@pytest.mark.parametrize("case", [pytest.param(c, id=c["case"]) for c in GOLDEN])
def test_network_config(case: dict[str, str], make_site: Any) -> None:
    files = render(one(make_site, case["host"]), controller=CONTROLLER)
    assert files["network-config"] == case["network-config"]


def test_defaults(make_site: Any) -> None:
    files = render(one(make_site), controller=CONTROLLER)
    assert list(files) == ["meta-data", "network-config", "user-data"]
    assert files["user-data"] == "#cloud-config\nhostname: r12-u07\nmanage_etc_hosts: true\n"
    assert files["meta-data"] == "instance-id: r12-u07-d1\nlocal-hostname: r12-u07\n"
    assert render(one(make_site), controller={})["meta-data"].startswith("instance-id: r12-u07\n")


def test_keys_and_full_name(make_site: Any) -> None:
    spec = msgspec.structs.replace(
        one(make_site, "vars: {ssh_authorized_keys: ['ssh-ed25519 AAAA a']}\n"), name="a.example.net"
    )
    assert render(spec, controller={})["user-data"] == (
        "#cloud-config\nhostname: a\nfqdn: a.example.net\nmanage_etc_hosts: true\n"
        "ssh_authorized_keys:\n- ssh-ed25519 AAAA a\n"
    )  # fmt: skip
    single = one(make_site, "vars: {ssh_authorized_keys: 'ssh-ed25519 AAAA b'}\n")
    assert yaml.safe_load(render(single, controller={})["user-data"])["ssh_authorized_keys"] == ["ssh-ed25519 AAAA b"]


TEMPLATE = """\
#cloud-config
# {{ name }} {{ hostname }} {{ fqdn }} {{ serial }} {{ role }} {{ pool }} {{ image }}
{% for nic in nics %}
# {{ nic }}
{% endfor %}
address: {{ network.address }}
motd: {{ vars.motd | tojson }}
rack: {{ labels.rack }}
url: {{ controller.url }}/{{ controller.deployment }}
"""


def test_template(make_site: Any) -> None:
    host = (
        "serial: X1\nlocation: {rack: r12}\nnics: ['B8-CA-3A-00-00-01']\nnetwork: {address: 10.1.0.7/24}\n"
        'vars: {motd: "it\'s: a #1\\n"}\n'
    )
    assert render(one(make_site, host, TEMPLATE), controller=CONTROLLER)["user-data"] == (
        "#cloud-config\n"
        "# r12-u07 r12-u07 r12-u07 X1 web None web@2\n"
        "# b8:ca:3a:00:00:01\n"
        "address: 10.1.0.7/24\n"
        'motd: "it\\u0027s: a #1\\n"\n'
        "rack: r12\n"
        "url: https://10.1.0.5:8443/d1\n"
    )


@pytest.mark.parametrize(
    ("template", "line"),
    [
        (
            "#cloud-config\n\nntp: {{ vars.ntp }}\n",
            (
                "templates/t.j2:3: r12-u07: expected a variable that is defined, got vars.ntp, which is not: "
                "set vars.ntp in the host, its role, its pool or the site"
            ),
        ),
        (
            "#cloud-config\n{% if nope %}x{% endif %}\n",
            (
                "templates/t.j2:2: r12-u07: expected a variable that is defined, got nope, which is not: set vars.nope and write "
                "{{ vars.nope }}; templates see controller, fqdn, hostname, image, labels, name, netmask, network, nics, pool, role, root_disk, secret, serial, switch, vars"
            ),
        ),
        (
            "#cloud-config\n{% for x in y %}\n",
            (
                "templates/t.j2:2: r12-u07: expected a Jinja2 template, got Unexpected end of template. Jinja was looking for the "
                "following tags: 'endfor' or 'else'. The innermost block that needs to be closed is 'for'.: mend the template at this line"
            ),
        ),
        (
            "#cloud-config\na: 1\nb: {{ name + 1 }}\n",
            (
                'templates/t.j2:3: r12-u07: expected a template that renders, got TypeError: can only concatenate str (not "int") to str: '
                "mend the template at this line"
            ),
        ),
        (
            "#cloud-config\nb: {{ name.__class__.__mro__ }}\n",
            (
                "templates/t.j2:2: r12-u07: expected a template that renders, got SecurityError: access to attribute '__class__' of "
                "'str' object is unsafe.: mend the template at this line"
            ),
        ),
        (
            "#cloud-config\n{% include 'other' %}\n",
            "templates/t.j2:2: r12-u07: expected a template that renders, got include and import are not offered: mend the template at this line",
        ),
        (
            "hostname: {{ name }}\n",
            'templates/t.j2:1: r12-u07: expected #cloud-config as the first line, got "hostname: r12-u07": write #cloud-config above all',
        ),
        (
            "#cloud-config\nmotd: {{ 'a: b' }}\n",
            (
                "templates/t.j2:1: r12-u07: expected valid YAML, got mapping values are not allowed in this context, on line 2 of user-data once "
                'rendered: quote text that has ": " in it, and check the indentation; {{ x | tojson }} quotes any value'
            ),
        ),
        (
            "#cloud-config\n- a\n",
            "templates/t.j2:1: r12-u07: expected user-data of fields and values, got list: write key: value",
        ),
        (
            "#cloud-config\n{{ range(90000) | join(', ') }} {{ range(90000) | join(', ') }}{{ range(90000) | join(', ') }}",
            "templates/t.j2:1: r12-u07: expected at most 1 MiB of text, got 1813 KiB: make it smaller",
        ),
    ],
)
def test_wrong_templates(template: str, line: str, make_site: Any) -> None:
    with pytest.raises(TemplateError) as caught:
        render(one(make_site, template=template), controller=CONTROLLER)
    assert caught.value.message == f"run-time config of r12-u07 does not render:\n{line}"


@pytest.mark.parametrize("keys", ["5", "{a: b}", "[1]"])
def test_keys_that_are_none(keys: str, make_site: Any) -> None:
    with pytest.raises(TemplateError, match=r"expected vars\.ssh_authorized_keys: a list of text"):
        render(one(make_site, f"vars: {{ssh_authorized_keys: {keys}}}\n"), controller={})


def test_scripts_need_not_be_yaml(make_site: Any) -> None:
    script = "#!/bin/sh\necho a: b: c\n"
    assert render(one(make_site, template=script), controller=CONTROLLER)["user-data"] == script
    other = one(make_site, template="a: b: c {{ name }}", file="motd")
    assert render(other, controller=CONTROLLER)["motd"] == "a: b: c r12-u07"


def test_a_sites_own_network_config_is_checked_too(make_site: Any) -> None:
    _, problems = attempt(one(make_site, template="version: 2\nversion: 1\n", file="network-config"), controller={})
    assert [p.got for p in problems] == ["version again (first on line 1), on line 2 of network-config once rendered"]


def test_digest() -> None:
    assert digest({}) == hashlib.sha256().hexdigest()
    assert digest({"b": "2\n", "a": "é"}) == hashlib.sha256(b"a\0" + "é".encode() + b"\0b\0" + b"2\n\0").hexdigest()
    assert digest({"a": "1", "b": "2"}) == digest({"b": "2", "a": "1"})


@given(st.dictionaries(st.from_regex(r"[a-z]{1,3}", fullmatch=True), st.text(max_size=5), min_size=1))
def test_digest_tells_contents_apart(files: dict[str, str]) -> None:
    name = min(files)
    assert digest(files) != digest({**files, name: files[name] + "x"})
    assert digest(files) != digest({k: v for k, v in files.items() if k != name})


@given(st.text(max_size=30), st.text(max_size=30))
def test_tojson_makes_any_value_safe(key: str, value: str) -> None:
    text = "#cloud-config\nx: [{{ vars.k | tojson }}, {{ vars.v | tojson }}]\n"
    site = Site(name="s", urls=Urls(bmc="http://a", machines="https://a"))
    host = Host(name="a", bmc="redfish+https://a", role="web", vars={"k": key, "v": value})
    role = Role(image="web@1", config={"user-data": "t"})
    docs = SiteDocs(site=site, hosts={"a": host}, roles={"web": role}, pools={}, profiles={}, lock={}, holds={}, templates={"t": text}, files={})  # fmt: skip
    files, problems = attempt(resolve(docs, "a", root=Path("/nowhere")), controller={})
    assert not problems
    assert yaml.safe_load(files["user-data"])["x"] == [key, value]
