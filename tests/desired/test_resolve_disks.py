"""What role, host and pool say of disks, combined."""

from __future__ import annotations

from typing import Any

from metalimmu.desired.load import load
from metalimmu.desired.resolve import resolve

ROLE = """\
image: db@1
mirror: true
keep: [{model: Exos}]
erase: [{disk: root}]
salvage: {paths: [/var/log]}
"""


def spec(make_site: Any, host: str, role: str = ROLE) -> Any:
    site = make_site(
        {
            "hosts/a.yaml": f'- {{name: a, bmc: "redfish+https://10.12.0.1", role: db, pool: new{host}}}',
            "roles/db.yaml": role,
            "pools/new.yaml": "burn_in: {cpu: 60s}",
        }
    )
    return resolve(load(site), "a", root=site)


def kept(found: Any) -> list[dict[str, Any]]:
    return [{k: v for k, v in hints.items() if v is not None} for hints in found.keep]


def test_what_the_host_keeps_comes_beside_what_its_role_keeps(make_site: Any) -> None:
    got = spec(make_site, ', keep: [{serial: "D1", min_size: 1TB}]')
    assert kept(got) == [{"model": "Exos"}, {"serial": "D1", "min_size": 10**12}]
    assert (got.mirrored, got.mirror) == (True, None)
    assert [r.disk for r in got.erase] == ["root"]
    assert got.burn_in.cpu == "60s"
    assert got.salvage.paths == ["/var/log"]


def test_the_hosts_second_disk_and_its_own_erase_rules(make_site: Any) -> None:
    got = spec(make_site, ', mirror: {serial: "S2"}, erase: [{disk: {serial: "S3"}, how: zero}]')
    assert got.mirror["serial"] == "S2"
    assert [(r.disk.serial, r.how) for r in got.erase] == [("S3", "zero")]


def test_the_roles_second_disk(make_site: Any) -> None:
    got = spec(make_site, "", role="image: db@1\nmirror: {max_size: 500GB}\n")
    assert got.mirrored
    assert got.mirror["max_size"] == 500 * 10**9


def test_nothing_said_is_nothing_done(make_site: Any) -> None:
    got = spec(make_site, "", role="image: db@1\n")
    assert (got.keep, got.mirrored, got.mirror, got.erase, got.salvage) == ((), False, None, (), None)
