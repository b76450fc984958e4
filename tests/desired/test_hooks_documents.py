"""Hooks and health checks as documents: their words, their templates per host, their order, what an editor is told."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalimmu.desired.check import check
from metalimmu.desired.hook_words import health_limit, hook_line, title, words
from metalimmu.desired.hooks import Health, Hook
from metalimmu.desired.load import load
from metalimmu.desired.resolve import resolve
from metalimmu.desired.schema import schema
from metalimmu.desired.types import HostSpec


@pytest.mark.parametrize(
    ("command", "split"),
    [
        ("./drain {{ name }}", ["./drain", "{{ name }}"]),
        ("""./drain --host={{ name }} "{{ labels["a b"] }} x" '{{ vars.y }}'""", ["./drain", "--host={{ name }}", '{{ labels["a b"] }} x', "{{ vars.y }}"]),
        ("./d {% if vars.x %}a{% endif %} 'b c' \\ d", ["./d", "{% if vars.x %}a{% endif %}", "b c", " d"]),
        ("./d {# 'a comment' #} e", ["./d", "{# 'a comment' #}", "e"]),
        (["./d", "a b", "'"], ["./d", "a b", "'"]),
        ("./d # no comment", ["./d", "#", "no", "comment"]),
    ],
)  # fmt: skip
def test_words(command: str | list[str], split: list[str]) -> None:
    assert words(command) == split


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs", "Co"]), min_size=1), min_size=1))
def test_a_quoted_command_is_what_was_quoted(argv: list[str]) -> None:
    import shlex

    plain = [a for a in argv if "{" not in a]
    assert words(shlex.join(plain)) == plain


@pytest.mark.parametrize(
    ("document", "name"),
    [
        ({"command": "./hooks/drain.sh {{ name }}"}, "drain.sh"),
        ({"command": "{{ vars.x }} y"}, "command"),
        ({"http": "https://lb.example.org:8443/{{ name }}"}, "lb.example.org"),
        ({"http": {"url": "https://{{ name }}/healthz"}}, "http"),
        ({"http": "http://127.0.0.1:{{ vars.port }}/x"}, "127.0.0.1"),
        ({"http": "https://[{{ address }}]:8443/x"}, "http"),
        ({"name": "lb", "command": "x"}, "lb"),
    ],
)
def test_names_of_hooks(document: dict[str, Any], name: str) -> None:
    assert title(msgspec.convert(document, Hook)) == name


@pytest.mark.parametrize(
    ("document", "name"),
    [
        ({"tcp": "{{ address }}:22"}, "tcp-22"),
        ({"prometheus": {"url": "http://p", "query": "x", "equals": 1}}, "prometheus"),
        ({"command": "./x"}, "x"),
    ],
)
def test_names_of_checks(document: dict[str, Any], name: str) -> None:
    assert title(msgspec.convert(document, Health)) == name


def test_limits() -> None:
    assert health_limit(Health(tcp="x:1")) == 900
    assert health_limit(Health(tcp="x:1", for_="10m")) == 1500
    assert health_limit(Health(tcp="x:1", for_="10m", limit="20m")) == 1200


def test_a_line_of_a_plan_stays_one_line() -> None:
    assert "\n" not in hook_line(Hook(command=["./x", "a\nb\x1b[2J"]), str)


HOST = "- {name: n1, bmc: 'ipmi://10.0.0.1', role: web, pool: p, network: {address: 10.1.0.7/24}, nics: ['00:00:00:00:00:01']}\n"


def test_the_pools_are_around_the_roles(make_site: Any) -> None:
    site = make_site(
        {
            "hosts/a.yaml": HOST,
            "roles/web.yaml": "image: web@1\nhooks: {before: ['true role'], after: ['true role']}\nhealth: {tcp: 'role:1'}\n",
            "pools/p.yaml": "hooks: {before: ['true pool'], after: ['true pool']}\nhealth: [{tcp: 'pool:1'}, {tcp: 'pool:2'}]\n",
        }
    )
    spec = resolve(load(site), "n1", root=site)
    assert [h.command for h in spec.before] == ["true pool", "true role"]
    assert [h.command for h in spec.after] == ["true role", "true pool"]
    assert [h.tcp for h in spec.health] == ["role:1", "pool:1", "pool:2"]
    assert msgspec.json.decode(msgspec.json.encode(spec), type=HostSpec) == spec


def test_templates_are_tried_for_each_host(make_site: Any) -> None:
    site = make_site(
        {
            "hosts/a.yaml": HOST
            + "- {name: n2, bmc: 'ipmi://10.0.0.2', role: web, pool: p, vars: {lb: x}}\n"
            + "- {name: n3, bmc: 'ipmi://10.0.0.3', role: web, pool: p}\n"
            + "- {name: n4, bmc: 'ipmi://10.0.0.4', role: other}\n",
            "roles/web.yaml": "image: web@1\n",
            "roles/other.yaml": "image: web@1\nhealth: {command: 'true {{ vars. }}'}\n",
            "pools/p.yaml": "hooks:\n"
            "  before:\n"
            "    - true {{ name }} {{ previous_image }} {{ address }} {{ image }}\n"
            "    - http:\n"
            "        url: https://lb/{{ vars.lb }}\n"
            "        headers: {Authorization: 'Bearer {{ secrets.t }}'}\n"
            "      secrets: {t: 'env:T'}\n",
        }
    )
    lb, other = (str(p) for p in check(site).problems)
    assert lb == (
        "pools/p.yaml:5: hooks.before[1].http.url: expected a variable that is defined, got vars.lb, which is not (of n1, n3): "
        "set vars.lb in the host, its role, its pool or the site"
    )
    assert other.startswith(
        "roles/other.yaml:2: health.command: expected a Jinja2 template, got expected name or number"
    )
    assert "(of n4)" in other


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("http://{{ address }}:{{ vars.port }}/", True),
        ("http://[{{ address }}]:80/", True),
        ("http://[{{ address }}:80/", False),
        ("http:///{{ name }}", False),
        ("http://{{ name }}:0/", False),
    ],
)
def test_host_and_port_of_a_url_may_be_templates(make_site: Any, url: str, good: bool) -> None:
    host = HOST.rstrip("\n").rstrip("}") + ", vars: {port: 8080}}\n"
    site = make_site(
        {"hosts/a.yaml": host, "roles/web.yaml": "image: web@1\n", "pools/p.yaml": f"health: {{http: '{url}'}}\n"}
    )
    assert (check(site).problems == ()) is good, check(site).problems


def test_a_template_cannot_leave_its_sandbox(make_site: Any) -> None:
    site = make_site(
        {
            "hosts/a.yaml": HOST,
            "roles/web.yaml": "image: web@1\n",
            "pools/p.yaml": 'hooks: {before: ["true {{ name.__class__.__mro__ }}", \'true {% include "x" %}\']}\n',
        }
    )
    assert len(check(site).problems) == 2


def test_believing_any_certificate_is_said_aloud(make_site: Any) -> None:
    site = make_site(
        {
            "hosts/a.yaml": HOST,
            "roles/web.yaml": "image: web@1\n",
            "pools/p.yaml": "health: {http: {url: 'https://{{ name }}/', tls: {verify: false}}}\n",
        }
    )
    report = check(site)
    assert report.problems == ()
    assert any("hooks or health checks" in r and "n1" in r for r in report.remarks)


def test_help_for_editors() -> None:
    found = schema("pool")["$defs"]
    assert found["Hooks"]["properties"]["before"]["description"].startswith("before anything is written")
    assert "without a break" in found["Health"]["properties"]["for"]["description"]
    assert "0 is good" in found["Hook"]["properties"]["command"]["description"]  # of the struct that it is based on
    assert {"limit", "undo", "http", "secrets"} <= found["Hook"]["properties"].keys()
    assert "Health" in schema("role")["$defs"]
