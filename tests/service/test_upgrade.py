"""A new program on the databases of an old one, and an old one on those of a new one.

releases/0.1.0-*.sql are dumps of what metalimmu 0.1.0 left behind when it was killed: node-2 was deployed, node-1 was
in mid-write, node-3 was queued.
"""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path

import msgspec
import pytest
import yaml
from drive import finish
from rack import Rack

from metalimmu.bmc.fake_machines import FileMachine
from metalimmu.boot.tokens import SiteKey
from metalimmu.engine import versions
from metalimmu.engine.durable import Engine
from metalimmu.errors import StoreError
from metalimmu.observed.machine import Boot, Drive, Machine
from metalimmu.service.site import OpenSite
from metalimmu.store.records import RunStatus
from metalimmu.store.sqlite import SqliteStore

RELEASES = Path(__file__).parent / "releases"


def left_behind(rack: Rack, release: str) -> None:
    """The state folder of that release, for this rack's addresses and keys."""
    urls = yaml.safe_load((rack.site / "site.yaml").read_text())["urls"]
    marks = {
        "@FOLDER@": str(rack.folder),
        "@BMC@": urls["bmc"].rsplit(":", 1)[1],
        "@MACHINES@": urls["machines"].rsplit(":", 1)[1],
    }
    state = rack.site / ".metalimmu"
    for name in ("store", "engine"):
        text = (RELEASES / f"{release}-{name}.sql").read_text()
        for mark, value in marks.items():
            text = text.replace(mark, value)
        with closing(sqlite3.connect(state / f"{name}.sqlite")) as conn:
            conn.executescript(text)
    key = SiteKey.at(state / "tls" / "site.key")
    with closing(sqlite3.connect(state / "store.sqlite")) as conn:
        had = {row[1] for row in conn.execute("PRAGMA table_info(deployments)")}
        for (run,) in conn.execute("SELECT id FROM deployments").fetchall():
            for column, value in ((c, v) for c, v in key.hashes(run).items() if c in had):
                conn.execute(f"UPDATE deployments SET {column} = ? WHERE id = ?", (value, run))
        (writing,) = conn.execute("SELECT id FROM deployments WHERE ended IS NULL").fetchone()
        conn.commit()
    _in_its_ramdisk(rack, "node-1", f"{urls['bmc']}/m/{key.secret('media', writing)}/boot.iso")


def _in_its_ramdisk(rack: Rack, name: str, media: str) -> None:
    def change(m: Machine) -> Machine:
        drives = {"Cd": Drive(image=media, inserted=True)}
        return msgspec.structs.replace(m, generation=2, booted_from="cd", boot_image=media, media=drives, boot=Boot())

    FileMachine(rack.state(name)).update(change)


@pytest.mark.parametrize("release", ["0.1.0"])
def test_runs_of_an_older_release_are_finished(tmp_path: Path, release: str) -> None:
    with ExitStack() as stack:
        rack = Rack(tmp_path, hosts=3)
        left_behind(rack, release)
        rack.power_up(stack)
        site = OpenSite(rack.site)
        stack.callback(site.close)
        before = {r.host: r for r in site.store.runs()}
        assert {h: str(r.status) for h, r in before.items()} == {
            "node-1": "running",
            "node-2": "succeeded",
            "node-3": "queued",
        }
        old = site.store.host("node-2")
        assert (old.proof, old.image, old.settles) == ("proven", "web@1", None)
        assert site.store.restored() is None
        done = finish(site, [r.id for r in before.values()])
        assert {r.status for r in done} == {RunStatus.succeeded}, [r.error for r in done]
        for name in ("node-1", "node-3"):
            host = site.store.host(name)
            assert (host.state, host.proof, host.image) == ("active", "proven", "web@1")
            assert rack.machine(name).generation == 3, "a boot more than without the upgrade"
        steps = site.store.steps(before["node-1"].id)
        assert [s.attempts for s in steps if s.name in ("insert", "override", "power")] == [1, 1, 1]
        assert next(s.attempts for s in steps if s.name == "write") == 2


def test_a_newer_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    SqliteStore(path).close()
    _add(
        path, "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('metalimmu', 'm999_later', '')"
    )
    before = _dump(path)
    with pytest.raises(StoreError) as raised:
        SqliteStore(path)
    assert raised.value.message == f"{path} is newer than this program: it has m999_later"
    assert raised.value.hint == "use the metalimmu that made it, or a newer one; this one changed nothing"
    assert _dump(path) == before


def test_a_newer_engine_is_refused_and_left_alone(tmp_path: Path) -> None:
    """DBOS opens one without a word, and works on tables that it does not know."""
    path = tmp_path / "engine.sqlite"
    engine = Engine(path, lambda _run, _checkpoint: None)
    engine.launch()
    engine.stop()
    known = versions.known()
    assert known is not None, "this DBOS does not say how many migrations it has"
    assert versions.of_file(path) == known
    versions.check(path)
    _add(path, f"UPDATE dbos_migrations SET version = {known + 1}")
    before = _dump(path)
    with pytest.raises(StoreError) as raised:
        Engine(path, lambda _run, _checkpoint: None).launch()
    words = f"{path} is newer than this program: its tables are of version {known + 1}, this one knows {known}"
    assert raised.value.message == words
    assert "use the metalimmu that made it" in raised.value.hint
    assert _dump(path) == before


def test_an_engine_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "engine.sqlite"
    assert versions.of_file(path) is None
    path.write_bytes(b"")
    assert versions.of_file(path) is None
    path.write_bytes(b"garbage" * 500)
    with pytest.raises(StoreError, match="cannot be read"):
        Engine(path, lambda _run, _checkpoint: None).launch()


def _add(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as conn:
        conn.execute(sql)
        conn.commit()


def _dump(path: Path) -> str:
    with closing(sqlite3.connect(path)) as conn:
        return "\n".join(conn.iterdump())
