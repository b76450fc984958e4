"""Config pushes over real TLS: who is offered what, who gets it, and what a machine's report makes of it."""

from __future__ import annotations

import base64
import dataclasses

import pytest
from boot_rig import Rig
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from test_http_agents import CHECK_IN, Agent

from metalimmu.boot.tokens import SiteKey
from metalimmu.plan.push import Push, serial
from metalimmu.wire import codec
from metalimmu.wire.messages import (
    ConfigAsk,
    ConfigFile,
    ConfigOffer,
    ConfigPackage,
    Refusal,
    RunTimeConfig,
    SystemAnswer,
    SystemReport,
    config_claim,
)
from metalimmu_emulator.simulated_system import public

OLD, NEW = "c" * 64, "d" * 64
SAID = SystemReport("web", "1", "build-1-1", "SN-n1", "boot-2", config_digest=OLD)


class System(Agent):
    def __init__(self, rig: Rig, name: str = "n1") -> None:
        super().__init__(rig, name)
        self.own = Ed25519PrivateKey.generate()
        self.said = dataclasses.replace(SAID, serial=f"SN-{name}", key=public(self.own))
        self.name = name

    def report(self, **fields) -> SystemAnswer:
        return self.post("system", dataclasses.replace(self.said, **fields), SystemAnswer, token=self.proof)

    def fetch(self, number: int, *, own=None, token=None, status: int = 200, claim: int | None = None):
        signature = (own or self.own).sign(config_claim(number if claim is None else claim))
        ask = ConfigAsk(number, base64.b64encode(signature).decode())
        kind = ConfigPackage if status == 200 else Refusal
        return self.post("system/config", ask, kind, token=token or self.proof, status=status)

    @property
    def record(self):
        return self.rig.store.deployment(self.name)

    def push(self, number: int = 7, digest: str = NEW) -> None:
        config = RunTimeConfig((ConfigFile("user-data", "new"),), digest)
        before = RunTimeConfig((ConfigFile("user-data", "old"),), OLD)
        made = Push(serial=number, digest=digest, config=config, key="k", spec={}, before=before, before_digest=OLD)
        self.rig.store.update_deployment(self.name, push=made)


@pytest.fixture
def system(rig):
    rig.digest = rig.images.add("web", "1")
    rig.deploy("n1", rig.digest)
    made = System(rig)
    made.check_in(CHECK_IN)
    return made


def test_offered_fetched_and_proven_by_the_digest(rig, system):
    assert system.report() == SystemAnswer(True, 300, None)
    assert system.record.host_key == system.said.key
    system.push()
    assert system.report().config == ConfigOffer(7, NEW)
    package = system.fetch(7)
    assert (package.serial, package.digest, package.files) == (7, NEW, (ConfigFile("user-data", "new"),))
    assert system.record.push.state == "fetched"
    assert system.report().config == ConfigOffer(7, NEW), "until it says that it has it"
    assert system.report(config_digest=NEW) == SystemAnswer(True, 300, None)
    d = system.record
    assert (d.push.state, d.config_digest, d.config_seen, d.config_key) == ("applied", NEW, NEW, "k")
    assert d.config.files[0].content == "new"
    assert d.system_ok
    assert d.system_why == ""
    assert rig.ended == [("n1", "applied")]
    system.fetch(7, status=409)


def test_a_boot_is_told_once_and_only_of_the_right_system(rig, system):
    for _ in range(2):
        system.report()
    assert rig.boots == ["n1"]
    system.report(boot_id="boot-3", image_version="2")
    assert rig.boots == ["n1"]
    system.report(boot_id="boot-3")
    assert rig.boots == ["n1", "n1"]


def test_a_failure_is_kept_with_its_words_and_offered_no_more(rig, system):
    system.report()
    system.push()
    assert system.report(config_failed=7, config_why="no\x1b[31m such\ninterface").config is None
    assert system.record.push.why == "no\N{REPLACEMENT CHARACTER}[31m such\ninterface"
    assert rig.ended == [("n1", "failed")]
    assert system.report(config_failed=7).acknowledged, "it runs what it ran"
    system.push(8)
    assert system.report(config_failed=7).config == ConfigOffer(8, NEW)


def test_one_that_went_back_after_it_was_heard(rig, system):
    """Our acknowledgement did not reach it in time."""
    system.report()
    system.push()
    system.report(config_digest=NEW)
    assert system.record.config_digest == NEW
    assert system.report(config_failed=7, config_why="not reached").acknowledged
    d = system.record
    assert (d.push.state, d.config_digest, d.config.files[0].content) == ("failed", OLD, "old")
    assert rig.ended == [("n1", "applied"), ("n1", "failed")]


def test_nothing_for_strangers(rig, system):
    system.report()
    system.push()
    other = Ed25519PrivateKey.generate()
    assert "not signed by the key" in system.fetch(7, own=other, status=403).message
    assert "not signed by the key" in system.fetch(7, claim=6, status=403).message
    assert "no config 8 waits" in system.fetch(8, status=409).message
    ask = codec.encode(ConfigAsk(7, base64.b64encode(system.own.sign(config_claim(7))).decode()))
    for token in (None, "x" * 32, system.token, rig.key.secret("media", "n1")):
        assert rig.ask("POST", "/v1/system/config", token=token, body=ask)[0] == 404
    for bad in ("", "!", "AAAA"):
        assert system.post("system/config", ConfigAsk(7, bad), Refusal, token=system.proof, status=403)
    assert rig.ask("GET", "/v1/system/config", token=system.proof)[0] == 404
    assert system.record.push.state == "waiting"


def test_another_hosts_token_and_key_bring_nothing(rig, system):
    rig.deploy("n2", rig.digest)
    second = System(rig, "n2")
    identity = dataclasses.replace(CHECK_IN.identity, serial="SN-n2")
    second.check_in(dataclasses.replace(CHECK_IN, identity=identity))
    system.report()
    second.report()
    system.push()
    assert second.report().config is None
    second.fetch(7, status=409)  # its own token, its own key: nothing waits for it
    second.fetch(7, token=system.proof, status=403)  # the other one's token, its own key
    assert second.report(serial="SN-n1").acknowledged is False
    assert system.record.push.state == "waiting"


def test_the_first_key_stays(rig, system):
    system.report()
    first = system.record.host_key
    system.push()
    system.own = Ed25519PrivateKey.generate()
    answer = system.report(key=public(system.own))
    assert answer.acknowledged, "what it runs is right all the same"
    assert answer.config is None
    assert system.record.host_key == first
    assert "not the one that it registered" in system.record.push.why
    system.fetch(7, status=403)


@pytest.mark.parametrize("key", ["", "no base64", base64.b64encode(b"short").decode()])
def test_without_a_key_there_is_no_offer(rig, system, key):
    system.report(key=key)
    assert system.record.host_key == ""
    system.push()
    assert system.report(key=key).config is None
    assert system.record.push.why


def test_a_wrong_system_registers_no_key_and_gets_nothing(rig, system):
    assert system.report(image_version="0") == SystemAnswer(False, 300, None)
    assert system.record.host_key == ""
    system.report()
    system.push()
    assert system.report(image_version="0").config is None
    assert system.report(image_version="0", config_digest=NEW).acknowledged is False
    assert system.record.push.state == "waiting", "what another system says of its config counts for nothing"


def test_what_a_guard_forbids_is_neither_offered_nor_given(rig, system):
    system.report()
    system.push()
    rig.held_back["n1"] = "n1 is frozen: christmas"
    assert system.report().config is None
    assert system.record.push.why == "n1 is frozen: christmas"
    assert system.fetch(7, status=409).message == "n1 is frozen: christmas"
    del rig.held_back["n1"]
    assert system.report().config == ConfigOffer(7, NEW)
    assert system.record.push.why == ""


def test_a_machine_that_deviates_is_offered_the_config_too(rig, system):
    system.report()
    system.push()
    answer = system.report(config_digest="e" * 64)
    assert not answer.acknowledged
    assert answer.config == ConfigOffer(7, NEW)
    assert system.record.config_seen == "e" * 64
    assert system.record.system_why.startswith("its run-time config is eee")


def test_a_controller_with_a_new_key_knows_none_of_its_machines(rig, system, tmp_path):
    system.report()
    system.push()
    rig.service.stop()
    (rig.root / "tls/site.key").unlink()
    rig.key = SiteKey.at(rig.root / "tls/site.key")
    rig.service = rig.new_service()
    rig.service.start()
    d = system.record  # hashes of the old key's tokens are still there: they are what counts
    assert system.report().acknowledged
    rig.store.update_deployment("n1", proof_hash="f" * 64)  # as of deployments of the new key
    rig.ask("POST", "/v1/system", token=system.proof, body=codec.encode(system.said))
    ask = codec.encode(ConfigAsk(7, "x"))
    assert rig.ask("POST", "/v1/system/config", token=system.proof, body=ask)[0] == 404
    assert d.push.state == "waiting"


def test_serials_only_grow():
    first = serial(1000.0, None)
    made = Push(serial=first, digest=NEW, config=RunTimeConfig((), NEW), key="", spec={})
    assert serial(900.0, made) == first + 1
    assert serial(2000.0, made) == 2_000_000
