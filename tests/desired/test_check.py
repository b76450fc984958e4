"""What `check` finds beyond the documents: credentials rules and templates of every host; and what it says aloud."""

from __future__ import annotations

from typing import Any

from metalimmu.desired.check import check

RULE = 'name: s\nurls: {bmc: "http://a", machines: "https://a"}\ncredentials: [{ref: "vault:kv/{{ serial }}"}]\n'


def host(name: str, number: int, more: str = "") -> str:
    return f"- {{name: {name}, bmc: 'redfish+https://10.0.{number >> 8}.{number & 255}', serial: S{number}, role: web{more}}}\n"


def test_a_clean_site(make_site: Any) -> None:
    report = check(make_site({"hosts/a.yaml": host("a", 1) + host("b", 2), "roles/web.yaml": "image: web@1"}))
    assert (report.problems, report.remarks, report.hosts, report.roles) == ((), (), 2, 1)


def test_an_undefined_variable_is_found_once_with_all_its_hosts(make_site: Any) -> None:
    site = make_site(
        {
            "hosts/a.yaml": host("a", 1) + host("b", 2, ", vars: {ntp: x}") + host("c", 3) + host("d", 4),
            "roles/web.yaml": "image: web@1\nconfig: {user-data: u.j2}\n",
            "templates/u.j2": "#cloud-config\n\nntp: {{ vars.ntp }}\n",
        }
    )
    assert [str(p) for p in check(site).problems] == [
        (
            "templates/u.j2:3: a and 2 more: expected a variable that is defined, got vars.ntp, which is not: "
            "set vars.ntp in the host, its role, its pool or the site"
        )
    ]


def test_a_credentials_rule_that_a_host_cannot_fill(make_site: Any) -> None:
    hosts = host("a", 1) + "- name: b\n  bmc: 'redfish+https://10.0.0.2'\n  nics: ['00:00:00:00:00:01']\n"
    report = check(make_site({"site.yaml": RULE, "hosts/a.yaml": hosts, "roles/web.yaml": "image: web@1"}))
    assert [str(p) for p in report.problems] == [
        (
            "hosts/a.yaml:2: b.credentials: expected a reference that renders, got credentials of b: 'vault:kv/{{ serial }}': "
            "'serial' is undefined: a reference may use {{ name }}, and {{ serial }} where the host has a serial"
        )
    ]


def test_broken_documents_are_not_rendered(make_site: Any) -> None:
    site = make_site({"hosts/a.yaml": host("a", 1), "roles/web.yaml": "image: web"})
    report = check(site)
    assert [p.file for p in report.problems] == ["roles/web.yaml"]
    assert report.hosts == 1


def test_a_template_is_looked_at_although_another_document_is_broken(make_site: Any) -> None:
    hosts = host("a", 1) + host("b", 2, ", protected: maybe")
    role = "image: web@1\nconfig: {user-data: u.j2}\n"
    template = "#cloud-config\nntp: {{ ntp }}\n"
    site = make_site({"hosts/a.yaml": hosts, "roles/web.yaml": role, "templates/u.j2": template})
    assert [(p.file, p.line, p.field) for p in check(site).problems] == [
        ("hosts/a.yaml", 2, "b.protected"),
        ("templates/u.j2", 2, "a"),
    ]


def test_what_is_off_is_said_aloud(make_site: Any) -> None:
    site = make_site(
        {
            "hosts/a.yaml": host("a", 1, ", tls: {verify: false}")
            + "- {name: b, bmc: 'redfish+http://10.0.0.2', serial: S2}\n- {name: c, bmc: 'redfish+https://10.0.0.3'}\n",
            "roles/web.yaml": "image: web@1\nproof: {by: none}\n",
        }
    )
    assert check(site).remarks == (
        "TLS is OFF (verify: false): anyone on the path can read the BMC's password of a",
        "no TLS (redfish+http): the BMC's password travels in the clear for b",
        "neither serial nor nics: nothing tells the right machine from a wrong one for c",
        "proof is none: hosts will show as unproven, of role web",
    )


def test_one_mistake_in_many_hosts_is_one_problem_with_their_number(make_site: Any) -> None:
    """A field that no host has, in each; and two profiles that are both for all of them."""
    wrong = "".join(host(f"n{i}", i, ", profil: x") for i in range(1, 201))
    report = check(make_site({"hosts/a.yaml": wrong, "roles/web.yaml": "image: web@1"}))
    assert [str(p) for p in report.problems] == [
        'hosts/a.yaml:1: profil: expected a known field, got "profil" (of 200 hosts: n1, n2, n3 and 197 more): write role'
    ]
    files = {f"hosts/{r}.yaml": "".join(host(f"{r}{i}", n * 100 + i, ", vendor: dell, model: R750") for i in range(100)) for n, r in enumerate("ab")}  # fmt: skip
    profiles = {f"profiles/{n}.yaml": f"match: {m}\nbios: {{sriov: enabled}}\n" for n, m in (("one", "{vendor: dell, model: R*}"), ("two", "{vendor: dell, model: '*0'}"))}  # fmt: skip
    report = check(make_site({**files, **profiles, "roles/web.yaml": "image: web@1"}))
    assert [str(p) for p in report.problems] == [
        (
            "hosts/a.yaml:1: expected one profile that fits best, got one, two (of 200 hosts: a0, a1, a2 and 197 more): "
            "name one in the host's role, or make one match more specific"
        )
    ]
