"""Run-time config without a new image: compared, rendered with secrets, pushed to simulated machines, and what goes wrong."""

from __future__ import annotations

import logging
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
import scan_rig
from config_rig import NEWER, SECRET, USER, Site, deployed, listening, push, record
from drive import reimage

from metalimmu.errors import GuardRefused, ReadOnlyMode, SecretError, TemplateError, UsageError
from metalimmu.plan.push import CONFIRM, fetched
from metalimmu.plan.types import Word
from metalimmu.service import configs, hosts, pushes, rollouts
from metalimmu.service.backup.archive import decompress
from metalimmu.service.backup.make import Protection, backup
from metalimmu.service.configs import Configs
from metalimmu.service.freezes import freeze, thaw
from metalimmu.service.guarding import Guards, act
from metalimmu.service.scans.drift import drifts
from metalimmu.service.scans.scan import scan
from metalimmu.service.site import OpenSite
from metalimmu.service.worker import Worker
from metalimmu.store.records import RunStatus
from metalimmu.wire.messages import PROOF_FILE


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def one(tmp_path: Path) -> Site:
    return Site(tmp_path)


# what is there, what is wanted


def test_what_was_deployed_and_what_the_site_says_now(one: Site, stack: ExitStack) -> None:
    assert one.word() == (Word.unknown, "metalimmu has not deployed it: nobody knows its config")
    machine = deployed(one, stack)
    assert one.word()[0] is Word.match
    shown = configs.show(one.open(), "node-1")
    assert shown["files"]["user-data"] == "#cloud-config\nntp: {servers: [ntp1]}\n"
    assert shown["digest"] == shown["reported"]
    assert machine.disk.seed["user-data"] == shown["files"]["user-data"]

    one.role(vars={"ntp": "ntp2"})
    word, reason = one.word()
    assert word is Word.differs
    assert reason == "user-data changed; applied at the next reimage, or by `metalimmu config push node-1`"
    site = one.open()
    _, changes = Configs(site).compare(site.spec("node-1"))
    assert [c.path for c in changes] == ["user-data"]
    assert "-ntp: {servers: [ntp1]}" in changes[0].lines
    assert "+ntp: {servers: [ntp2]}" in changes[0].lines
    assert "ntp2" in configs.render_now(site, "node-1")["user-data"]


def test_an_address_in_it_is_the_one_that_was_served(tmp_path: Path, stack: ExitStack) -> None:
    site = Site(tmp_path, template="#cloud-config\nphone_home: {url: '{{ controller.phone_home }}'}\n")
    text = (site.rack.site / "site.yaml").read_text()
    boot = site.rack.boot_url.replace("127.0.0.1", "localhost")
    (site.rack.site / "site.yaml").write_text(text.replace("urls:\n", f"urls:\n  boot: {boot}\n"))
    machine = deployed(site, stack)
    assert f"{boot}/p/" in machine.disk.seed["user-data"]
    assert site.word() == (Word.match, "")


def test_a_template_that_no_longer_renders_is_unknown(one: Site, stack: ExitStack) -> None:
    deployed(one, stack)
    one.role(vars={})
    word, reason = one.word()
    assert word is Word.unknown
    assert "vars.ntp" in reason


def test_a_scan_finds_it_for_hosts_that_were_deployed(tmp_path: Path, stack: ExitStack) -> None:
    site = Site(tmp_path, 2)
    site.rack.power_up(stack, pace=0.2)
    assert reimage(site.rack.site).status is RunStatus.succeeded
    bmcs = scan_rig.Rig(site.rack.site, {name: scan_rig.Machine() for name in site.rack.names})

    def found() -> dict[tuple[str, str], Word]:
        result = scan(site.open(), read=bmcs.read)
        return {(r.host, r.finding.setting): r.finding.word for r in result.findings}

    assert found() == {("node-1", "config.digest"): Word.match}
    site.role(vars={"ntp": "ntp2"})
    assert found() == {("node-1", "config.digest"): Word.differs}
    (drift,) = drifts(site.open())
    assert (drift.severity, drift.reason.partition(";")[0]) == ("warning", "user-data changed")
    assert push(site)[0].state == "applied"
    assert found() == {("node-1", "config.digest"): Word.match}
    assert hosts.show(site.open(), "node-1")["config"]["word"] == "match"
    assert hosts.show(site.open(), "node-2")["config"] is None


# pushed


def test_a_push_is_fetched_applied_and_proven_by_its_digest(one: Site, stack: ExitStack) -> None:
    machine = deployed(one, stack)
    before = record(one)
    one.role(vars={"ntp": "ntp2"}, apply="/usr/local/sbin/reconfigure --all")
    assert [(e.host, e.state) for e in push(one)] == [("node-1", "applied")]
    assert "ntp2" in machine.disk.seed["user-data"]
    assert any("applied by /usr/local/sbin/reconfigure --all" in line for line in machine.log)
    assert one.word()[0] is Word.match
    after = record(one)
    assert after.config_digest == after.config_seen != before.config_digest
    assert after.id == before.id
    assert "instance-id: node-1-" + before.id in machine.disk.seed["meta-data"]
    site = one.open()
    host = site.store.host("node-1")
    assert host.proof == "proven"
    kinds = [e.text for e in site.store.history("node-1", kind="config")]
    assert len(kinds) == 2
    assert kinds[0].startswith("push of config")
    assert kinds[1].endswith("applied")
    proposal = pushes.propose(site, ["node-1"])[0]
    assert proposal.nothing


def test_a_config_that_cannot_be_applied_leaves_the_old_one(one: Site, stack: ExitStack) -> None:
    machine = deployed(one, stack, config_fails="netplan: no such interface\x1b[31m")
    one.role(vars={"ntp": "ntp2"})
    ended = push(one)[0]
    assert (ended.state, ended.why) == ("failed", "netplan: no such interface\N{REPLACEMENT CHARACTER}[31m")
    assert "ntp1" in machine.disk.seed["user-data"]
    word, reason = one.word()
    assert word is Word.differs
    assert "a push has failed: netplan" in reason
    assert record(one).config_seen == record(one).config_digest


def test_a_config_that_cuts_the_machine_off_is_taken_back_by_the_machine(one: Site, stack: ExitStack) -> None:
    machine = deployed(one, stack, config_cuts_off="")
    one.role(vars={"ntp": "ntp2"})
    ended = push(one)[0]
    assert (ended.state, ended.why) == ("failed", "the controller was not reached after the change")
    assert "ntp1" in machine.disk.seed["user-data"]


def test_a_fetch_that_is_cut_is_done_again(one: Site, stack: ExitStack) -> None:
    machine = deployed(one, stack, config_cut="")
    one.role(vars={"ntp": "ntp2"})
    assert push(one)[0].state == "applied"
    assert "the fetch was cut" in machine.log


def test_the_key_that_signs_is_the_one_that_was_registered(one: Site, stack: ExitStack) -> None:
    machine = deployed(one, stack, other_key="")
    one.role(vars={"ntp": "ntp2"})
    site = one.open()
    pushes.push(site, "node-1")
    listening(one, 1.5)
    assert "no config: 403" in machine.log
    assert record(one).push.state == "waiting"
    assert pushes.withdraw(site, "node-1").state == "withdrawn"
    with pytest.raises(UsageError, match="no push waits"):
        pushes.withdraw(site, "node-1")


def test_an_image_without_the_unit_gets_it_by_a_reimage(one: Site, stack: ExitStack) -> None:
    deployed(one, stack, no_unit="")
    one.role(vars={"ntp": "ntp2"})
    refused = pushes.propose(one.open(), ["node-1"])[0]
    assert "no unit that fetches configs" in refused.refused
    with pytest.raises(UsageError, match="no unit"):
        pushes.push(one.open(), "node-1")
    assert reimage(one.rack.site, force=True).status is RunStatus.succeeded
    assert one.word()[0] is Word.match


def test_a_machine_that_was_put_back_is_seen_and_mended(one: Site, stack: ExitStack) -> None:
    """A snapshot of its disk was restored: it says an older digest than the one it was given."""
    machine = deployed(one, stack)
    old = dict(machine.disk.seed)
    one.role(vars={"ntp": "ntp2"})
    assert push(one)[0].state == "applied"
    machine.disk.seed = old
    listening(one, 1.5)
    word, reason = one.word()
    assert word is Word.differs
    assert "the machine says that it has another config" in reason
    assert record(one).system_why.startswith("its run-time config is")
    assert push(one)[0].state == "applied"
    assert one.word()[0] is Word.match
    assert record(one).system_why == ""


def test_a_machine_takes_nothing_older_than_it_has(one: Site, stack: ExitStack) -> None:
    """A controller restored from a backup offers what was pushed before."""
    machine = deployed(one, stack)
    one.role(vars={"ntp": "ntp2"})
    site = one.open()
    pushes.push(site, "node-1")
    machine.disk.applied = record(one).push.serial + 1
    listening(one, 1.5)
    assert record(one).push.state == "failed"
    assert "is not newer" in record(one).push.why
    machine.disk.applied -= 2
    assert push(one)[0].state == "applied"


# guards


def test_guards_hold_when_it_is_asked_and_when_it_is_fetched(one: Site, stack: ExitStack) -> None:
    machine = deployed(one, stack)
    one.role(vars={"ntp": "ntp2"})
    site = one.open()
    frozen = freeze(site, reason="christmas")
    assert "frozen" in pushes.propose(site, ["node-1"])[0].refused
    with pytest.raises(GuardRefused, match="christmas"):
        pushes.push(site, "node-1")
    thaw(site, frozen.id)
    pushes.push(site, "node-1")
    freeze(site, reason="easter")
    listening(one, 1.5)
    assert "ntp1" in machine.disk.seed["user-data"]
    waits = record(one).push
    assert waits.state == "waiting"
    assert "easter" in waits.why
    assert "easter" in one.word()[1]
    thaw(site)
    listening(one, 2)
    assert record(one).push.state == "applied"


def test_read_only_pushes_nothing(one: Site, stack: ExitStack) -> None:
    deployed(one, stack)
    one.role(vars={"ntp": "ntp2"})
    text = (one.rack.site / "site.yaml").read_text()
    (one.rack.site / "site.yaml").write_text(text.replace("mode: read-write", "mode: read-only"))
    with pytest.raises(ReadOnlyMode):
        pushes.push(one.open(), "node-1")


def test_another_role_is_no_config_push(one: Site, stack: ExitStack) -> None:
    deployed(one, stack)
    one.rack.image("db@1", 6)
    one.role(image="db@1")
    assert "runs web@1, its role wants db@1" in pushes.propose(one.open(), ["node-1"])[0].refused


def test_the_first_host_goes_alone_and_none_after_a_failure(tmp_path: Path, stack: ExitStack) -> None:
    site = Site(tmp_path, 3)
    site.rack.power_up(stack, pace=0.2, faults={"node-2": {"config_fails": "no"}})
    for host in site.rack.names:
        assert reimage(site.rack.site, host).status is RunStatus.succeeded
    site.role(vars={"ntp": "ntp2"})
    assert [(e.host, e.state) for e in push(site, "node-2", "node-3")] == [("node-2", "failed")]
    assert record(site, "node-3").push is None
    second = push(site, "node-3", "node-2", "node-1")
    assert (second[0].host, second[0].state) == ("node-1", "applied")
    assert record(site, "node-3").push is not None  # the second batch: together with the one that fails


def test_pushes_of_a_wave_keep_to_the_guards(tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path, 3)
    site.rack.power_up(stack, pace=0.2)
    for host in site.rack.names:
        assert reimage(site.rack.site, host).status is RunStatus.succeeded
    for host in site.rack.names:
        site.change("hosts/rack.yaml", host, location={"rack": "r1"}, pool="web")
    site.rack.write("pools/web.yaml", {"batch": "67%", "failure_domain": ["rack"]})
    site.role(vars={"ntp": "ntp2"})
    opened = site.open()
    assert [w for _, w in rollouts.waves_of(opened, site.rack.names)] == [1, 2, 2]
    worker = Worker(opened, runs=False)
    stack.callback(opened.close)
    stack.callback(worker.stop)
    under_way: list[int] = []
    refused: list[str] = []
    real = pushes.push

    def pushed(site: OpenSite, host: str, **more: Any) -> Any:
        made = real(site, host, **more)
        under_way.append(len(site.store.rollouts.standing().pushed))
        free = next(h for h in ("node-1", "node-2") if h != host)
        refused.extend(
            r.guard for r in Guards(site).refusals(act("reimage", free, {}))
        )  # what others ask for meanwhile
        return made

    monkeypatch.setattr(pushes, "push", pushed)
    ended = list(pushes.roll(opened, site.rack.names, listening=worker.try_start))
    assert [(e.host, e.state) for e in ended] == [(h, "applied") for h in site.rack.names]
    assert max(under_way) == 1
    assert set(refused) == {"failure_domain"}
    assert opened.store.rollouts.standing().pushed == {}


def test_a_failure_in_a_wave_begins_no_more_of_it(tmp_path: Path, stack: ExitStack) -> None:
    site = Site(tmp_path, 3)
    site.rack.power_up(stack, pace=0.2, faults={"node-2": {"config_fails": "no"}})
    for host in site.rack.names:
        assert reimage(site.rack.site, host).status is RunStatus.succeeded
    site.rack.write("pools/web.yaml", {"failure_domain": ["rack"]})
    for host in site.rack.names:
        site.change("hosts/rack.yaml", host, location={"rack": "r1"}, pool="web")
    site.role(vars={"ntp": "ntp2"})
    ended = push(site, *site.rack.names, batch=2)
    assert [(e.host, e.state) for e in ended] == [("node-1", "applied"), ("node-2", "failed")]
    assert record(site, "node-3").push is None


def test_a_machine_that_asks_late_is_asked_about_again(one: Site, stack: ExitStack) -> None:
    """Its push has not counted for a while; from the moment that it fetches, it does."""
    machine = deployed(one, stack)
    one.role(vars={"ntp": "ntp2"})
    site = one.open()
    made = pushes.push(site, "node-1")
    assert list(site.store.rollouts.standing().pushed) == ["node-1"]
    d = Configs(site).deployment("node-1")
    assert d is not None
    site.store.update_deployment(d.id, push=msgspec.structs.replace(made, until=1.0))
    assert site.store.rollouts.standing().pushed == {}
    until = fetched(made, 1e12)["until"]
    assert until - 1e12 == site.spec("node-1").limits["apply"] + CONFIRM
    listening(one, 2)
    assert "ntp2" in machine.disk.seed["user-data"]
    kept = record(one).push
    assert kept.state == "applied"
    assert kept.until > kept.fetched


# secrets


def secretly(tmp_path: Path) -> Site:
    return Site(tmp_path, template=USER + "password: {{ secret('file:db-password') | tojson }}\n")


def everywhere(site: Site, *values: str) -> list[str]:
    """Files of the site's state and of the rack that have one of these texts."""
    found = []
    for path in site.rack.folder.rglob("*"):
        if path.is_file() and path.name != "db-password":
            data = path.read_bytes()
            found += [f"{path}: {v}" for v in values if v.encode() in data]
    return found


def test_secrets_are_on_the_machine_and_nowhere_else(
    tmp_path: Path, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    site = secretly(tmp_path)
    machine = deployed(site, stack)
    assert f'password: "{SECRET}"' in machine.disk.seed["user-data"]
    assert site.word()[0] is Word.match
    shown = configs.show(site.open(), "node-1")
    assert 'password: "(secret file:db-password)"' in shown["files"]["user-data"]
    assert shown["secrets"] == ["file:db-password"]

    site.secret(NEWER)
    word, reason = site.word()
    assert (word, reason.split(";")[0]) == (Word.differs, "user-data changed")
    opened = site.open()
    _, changes = Configs(opened).compare(opened.spec("node-1"))
    assert 'password: "(secret file:db-password, changed)"' in "\n".join(changes[0].lines)
    assert SECRET not in str(changes)
    assert NEWER not in str(changes)
    assert push(site)[0].state == "applied"
    assert f'password: "{NEWER}"' in machine.disk.seed["user-data"]
    assert site.word()[0] is Word.match

    unpacked(backup(opened, tmp_path / "backup.tar", Protection(without_keys=True)).path, tmp_path / "unpacked")
    assert (tmp_path / "unpacked/store.sqlite").is_file()
    assert everywhere(site, SECRET, NEWER) == []
    assert SECRET not in caplog.text
    assert NEWER not in caplog.text
    rendered = configs.render_now(opened, "node-1", with_secrets=True)
    assert NEWER in rendered["user-data"]
    assert NEWER not in str(configs.render_now(opened, "node-1"))


def unpacked(path: Path, folder: Path) -> None:
    """All that is in a backup, so that it can be searched."""
    folder.mkdir()
    with tarfile.open(path) as tar:
        for member in tar:
            data = tar.extractfile(member)
            if data is None:
                continue
            name = folder / member.name.replace("/", "_").removesuffix(".zst")
            with name.open("wb") as out:
                decompress(data, out) if member.name.endswith(".zst") else out.write(data.read())


def test_the_digest_says_nothing_about_a_short_secret(tmp_path: Path, stack: ExitStack) -> None:
    """Whoever has the store knows the text around the secret: without the salt, four digits would be guessed at once."""
    import hashlib

    site = Site(tmp_path, template="#cloud-config\npin: '{{ secret('file:db-password') }}'\n")
    site.secret("0042")
    machine = deployed(site, stack)
    kept = {f.path: f.content for f in record(site).config.files}
    wanted = record(site).config_digest

    def over(files: dict[str, str]) -> str:
        total = hashlib.sha256()
        for path, content in sorted(files.items()):
            total.update(path.encode() + b"\0" + content.encode() + b"\0")
        return total.hexdigest()

    real = {k: v for k, v in machine.disk.seed.items() if k != PROOF_FILE}
    assert over(real) == wanted
    guess = {**kept, "user-data": "#cloud-config\npin: '0042'\n"}
    assert over(guess) != wanted
    assert over({k: v for k, v in guess.items() if k != "metalimmu.salt"}) != wanted


def test_a_secret_that_cannot_be_read_is_said_before_the_machine_is_touched(tmp_path: Path, stack: ExitStack) -> None:
    site = secretly(tmp_path)
    site.rack.power_up(stack)
    (site.rack.site / "db-password").unlink()
    run = reimage(site.rack.site)
    assert run.status is RunStatus.failed
    assert run.error is not None
    assert run.error.code == "SecretError"
    assert [s.name for s in site.open().store.steps(run.id)] == ["preflight"], "no hook has drained it either"
    assert site.rack.machine("node-1").generation == 1


def test_a_secret_that_breaks_the_yaml_is_not_shown(tmp_path: Path, stack: ExitStack) -> None:
    site = Site(tmp_path, template="#cloud-config\na: {{ secret('file:db-password') }}\n")
    bad = "x: [unbalanced-planted"
    site.secret(bad)
    opened = site.open()
    with pytest.raises(TemplateError) as caught:
        configs.render_now(opened, "node-1", with_secrets=True)
    assert "planted" not in str(caught.value)
    assert "once its secrets are filled in: templates/user.j2" in caught.value.message
    site.rack.power_up(stack)
    run = reimage(site.rack.site)
    assert run.status is RunStatus.failed
    assert everywhere(site, "unbalanced-planted") == []


def test_secrets_that_cannot_be_read_or_compared_are_unknown(tmp_path: Path, stack: ExitStack) -> None:
    site = secretly(tmp_path)
    deployed(site, stack)
    (site.rack.site / "db-password").chmod(0o644)
    word, reason = site.word()
    assert word is Word.unknown
    assert "open to others" in reason
    site.role(vars={"ntp": "ntp2"})  # the rest can be compared without it
    assert site.word()[0] is Word.differs
    site.role()
    (site.rack.site / "db-password").chmod(0o600)
    assert site.word()[0] is Word.match
    (site.rack.site / ".metalimmu/tls/site.key").unlink()
    assert site.word() == (
        Word.unknown,
        "its secrets cannot be compared: the site's key is not the one that it was deployed with",
    )


def test_each_secret_is_asked_for_once_and_a_vault_that_is_away_not_for_ever() -> None:
    from metalimmu.service.config import Secrets

    asked: list[str] = []

    def read(ref: str, *, folder: Path) -> str:
        asked.append(ref)
        if ref.startswith("vault:away"):
            raise SecretError(f"{ref}: timed out")
        return "value-" + ref

    secrets = Secrets(Path(), read)
    assert [secrets("env:A"), secrets("env:A")] == ["value-env:A"] * 2
    assert asked == ["env:A"]
    for i in range(10):
        with pytest.raises(SecretError):
            secrets(f"vault:away/{i}")
    assert len(asked) == 4
    with pytest.raises(TemplateError, match="wants a reference"):
        secrets("plain text")
