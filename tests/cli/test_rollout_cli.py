"""What a person types for many hosts, and what they read: targets, refusals, the number to type, freezes, tables."""

from __future__ import annotations

import io
import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from rack import Rack

from metalimmu import main
from metalimmu.plan.waves import RolloutState, RowState
from metalimmu.service import rollouts
from metalimmu.service.site import OpenSite
from metalimmu.store.rollout_records import RolloutHost, RolloutRecord

Said = tuple[int, str, str]


@pytest.fixture(autouse=True)
def terminated() -> Iterator[None]:
    """`main.run` takes SIGTERM for the whole process."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def rack(tmp_path: Path) -> Rack:
    rack = Rack(tmp_path, 4)
    document = yaml.safe_load((rack.site / "hosts/rack.yaml").read_text())
    for i, host in enumerate(document):
        host |= {"pool": "web", "location": {"rack": f"r{i % 2}"}, "protected": i == 3}
    rack.write("hosts/rack.yaml", document)
    rack.write("pools/web.yaml", {"batch": 2})
    return rack


@pytest.fixture
def say(rack: Rack, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    def run(*args: str, typed: str = "") -> Said:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        code = main.run(["--site", str(rack.site), *args])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def site(rack: Rack) -> Iterator[OpenSite]:
    opened = OpenSite(rack.site)
    yield opened
    opened.close()


@pytest.mark.parametrize("verb", [("reimage",), ("rollback",), ("plan",), ("prove",), ("power", "off")])
def test_a_verb_without_a_target_does_nothing(say: Callable[..., Said], verb: tuple[str, ...]) -> None:
    code, _, err = say(*verb)
    assert code == 2
    assert f"{' '.join(verb)} of which hosts?" in err


def test_a_selector_that_means_nothing_or_everything_says_so(say: Callable[..., Said]) -> None:
    code, _, err = say("reimage", "-l", "rack=r9", "--yes")
    assert code == 2
    assert "no host of 4 matches -l rack=r9" in err
    _, out, err = say("plan", "-l", "pool=web")
    assert "matches every host of this site (4)" in err
    _, out, err = say("plan", "-l", "rack=r0")
    assert "every" not in err
    assert "node-3" in out
    code, _, err = say("reimage", "node-1", "-l", "rack=r0")
    assert code == 2
    code, _, err = say("reimage", "node-1", "node-9", "--yes")
    assert code == 2
    assert "node-9" in err


def test_a_plan_of_many_is_a_table_with_waves_and_refusals(
    rack: Rack, say: Callable[..., Said], site: OpenSite
) -> None:
    before = [rack.machine(n) for n in rack.names]
    code, out, _ = say("plan", "-l", "pool=web")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["WAVE", "HOST", "NOW", "WANTED", "BOOTS", "MB", "MINUTES", "NOTE"]
    assert [line.split()[:2] for line in lines[1:5]] == [
        ["1", "node-1"],
        ["2", "node-2"],
        ["2", "node-3"],
        ["-", "node-4"],
    ]
    assert "REFUSED: is protected" in lines[4]
    assert "3 hosts in 2 waves: 6 boots" in out
    assert "1 refused" in out
    after = [rack.machine(n) for n in rack.names]
    assert [(m.media, m.boot, m.power) for m in after] == [(m.media, m.boot, m.power) for m in before]
    code, out, _ = say("plan", "-l", "pool=web", "-o", "json")
    data = json.loads(out)
    assert [d["wave"] for d in data] == [1, 2, 2, 0]
    assert data[0]["plan"]["steps"]
    assert data[3]["refused"] == "node-4 is protected"
    assert site.store.runs() == []


def test_a_plan_says_when_the_pool_lets_fewer_go_than_its_waves_have(
    rack: Rack, say: Callable[..., Said], site: OpenSite
) -> None:
    for name in rack.names:
        site.store.update_host(name, state="deploying")
        site.store.update_host(name, state="active")
    assert "to spare" not in say("plan", "-l", "pool=web")[1]
    rack.write("pools/web.yaml", {"batch": 2, "min_active": 3})
    assert "pool web has 1 of 4 to spare: its waves go 1 at a time" in say("plan", "-l", "pool=web")[1]


def test_a_plan_says_that_the_window_is_closed(rack: Rack, say: Callable[..., Said]) -> None:
    def window(hours: int) -> dict[str, str]:
        begin, end = (time.strftime("%H:00", time.gmtime(time.time() + 3600 * h)) for h in (hours, hours + 2))
        return {"start": begin, "end": end}

    rack.write("pools/web.yaml", {"batch": 2, "windows": [window(3)]})
    out = say("plan", "-l", "pool=web")[1]
    assert "pool web is outside of its maintenance windows: nothing begins before 20" in out
    assert window(3)["start"] + ":00Z" in out
    rack.write("pools/web.yaml", {"batch": 2, "windows": [window(-1), window(3)]})
    assert "maintenance windows" not in say("plan", "-l", "pool=web")[1]


def test_a_name_is_said_once_however_many_guards_refuse(rack: Rack, say: Callable[..., Said]) -> None:
    rack.write("pools/web.yaml", {"batch": 2, "mode": "read-only"})
    code, _, err = say("reimage", "node-3", "node-4", "--yes")
    assert code == 1
    (line,) = [s for s in err.splitlines() if "is protected" in s]
    assert line.endswith("nothing is written; is protected")


@pytest.mark.parametrize("option", [("--batch", "1"), ("--max-failures", "1"), ("--skip-refused",)])
def test_one_host_with_options_of_many_is_a_rollout(
    say: Callable[..., Said], site: OpenSite, option: tuple[str, ...]
) -> None:
    code, out, _ = say("reimage", "node-1", *option, typed="0\n")
    assert code != 0
    assert "1 hosts will be erased. Type their number" in out
    assert site.store.runs() == []


def test_refused_hosts_are_listed_and_the_others_go_on_only_when_told(say: Callable[..., Said], site: OpenSite) -> None:
    code, _, err = say("reimage", "-l", "pool=web", "--yes")
    assert code == 1
    assert "1 of 4 hosts are refused" in err
    assert "node-4: is protected" in err
    assert "--skip-refused" in err
    code, out, err = say("reimage", "-l", "pool=web", "--skip-refused", typed="4\n")
    assert code == 1  # it is three of them
    assert "3 hosts will be erased. Type their number" in out
    assert "nothing was changed" in err
    assert site.store.rollouts.find() == []


@pytest.mark.parametrize(("args", "code", "word"), [
    (("--yes",), 2, "3 hosts will be erased: --yes is for up to 2 (guards.max_hosts)"),
    (("--confirm", "4"), 1, "3 hosts will be erased, and --confirm says 4"),
    (("--no-wait", "--confirm", "3"), 2, "there is none"),
])  # fmt: skip
def test_how_many_must_be_known(
    rack: Rack, say: Callable[..., Said], site: OpenSite, args: tuple[str, ...], code: int, word: str
) -> None:
    document = yaml.safe_load((rack.site / "site.yaml").read_text())
    rack.write("site.yaml", {**document, "guards": {"max_hosts": 2}})
    found, _, err = say("reimage", "node-1", "node-2", "node-3", *args)
    assert (found, word in err) == (code, True), err
    assert site.store.rollouts.find() == []
    assert site.store.runs() == []


def test_freezes(say: Callable[..., Said]) -> None:
    assert say("freeze", "on", "--reason", "x", "-l", "rack=r7")[0] == 2
    assert say("freeze", "on", "--reason", "x", "-l", "proof=proven")[0] == 2
    assert say("freeze", "on", "--reason", "x", "--until", "yesterday")[0] == 2
    assert say("freeze", "on", "--reason", "x", "--until", "2020-01-01 00:00")[0] == 2
    code, out, _ = say("freeze", "on", "--reason", "audit", "-l", "rack=r1", "--until", "4h")
    assert code == 0
    assert "2 of 4 hosts are frozen until" in out
    name = out.split(":")[0]
    _, out, _ = say("freeze", "status")
    assert "audit" in out
    code, _, err = say("reimage", "node-2", "--yes")
    assert code == 1
    assert "audit" in err
    assert f"freeze off {name}" in err
    code, _, err = say("power", "off", "node-2", "--yes")
    assert code == 1
    assert say("power", "on", "node-2")[0] == 0  # to bring something back is no change
    say("freeze", "on", "--reason", "second")
    assert say("freeze", "off")[0] == 2  # which one?
    assert say("freeze", "off", name)[0] == 0
    assert say("freeze", "off")[0] == 0
    assert say("freeze", "status")[1] == "nothing is frozen\n"


def test_power_of_many_stops_where_the_pool_has_no_more_to_spare(
    rack: Rack, say: Callable[..., Said], site: OpenSite
) -> None:
    rack.write("pools/web.yaml", {"min_active": 2})
    for name in rack.names:
        site.store.update_host(name, state="deploying")
        site.store.update_host(name, state="active")
    code, _, err = say("power", "off", "node-1", "node-2", "node-3", "--confirm", "3")
    assert code == 1
    assert "would have 1 active of 4, min_active is 2" in err
    assert sum(rack.machine(n).power == "Off" for n in rack.names) == 2
    code, _, err = say("power", "reset", "node-4", "--yes", "--allow-protected", "--reason", "x")
    assert code == 1
    assert "min_active" in err
    assert say("power", "on", "node-1", "node-2", "node-3")[0] == 0
    assert "On" in say("power", "status", "-l", "pool=web")[1]


def test_a_restarted_machine_is_not_counted_on_for_a_while(
    rack: Rack, say: Callable[..., Said], site: OpenSite
) -> None:
    rack.write("pools/web.yaml", {"max_unavailable": 1})
    for name in rack.names:
        site.store.update_host(name, state="deploying")
        site.store.update_host(name, state="active")
    assert say("power", "reset", "node-1", "--yes")[0] == 0
    code, _, err = say("power", "reset", "node-2", "--yes")
    assert code == 1
    assert "2 of 4 not active, max_unavailable is 1" in err


def ask(site: OpenSite, hosts: int, **states: int) -> str:
    """A rollout as it may look in the middle."""
    words = [w for word, count in states.items() for w in [word] * count]
    rows = [
        RolloutHost(
            rollout="", host=f"n{i:03}", seq=i, wave=1 + i // 10, state=RowState(words[i]), since=time.time() - 60, image="web@2",
            reason="report: nothing was heard " * 3 if words[i] == "failed" else "",
        )
        for i in range(hosts)
    ]  # fmt: skip
    site.store.rollouts.add(
        RolloutRecord(id="o-20261120-1", verb="reimage", by="ann", reason="5 hosts of wave 9 under way"), rows
    )
    return "o-20261120-1"


def test_two_hundred_hosts_fit_on_a_screen(site: OpenSite) -> None:
    from rich.console import Console

    from metalimmu.cli.rollout_watch import picture

    name = ask(site, 200, done=80, failed=9, running=31, waiting=80)
    console = Console(file=io.StringIO(), width=120, height=50, force_terminal=False)
    store = site.store.rollouts
    console.print(picture(site, store.get(name), store.hosts(name)))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) < 40
    assert "80 waiting, 31 running, 80 done, 9 failed" in lines[0]
    assert any("… and 11 more under way" in line for line in lines)
    assert sum("FAILED" in line for line in lines) == 5
    assert max(map(len, lines)) <= 120


def test_list_show_and_a_watch_without_a_terminal(say: Callable[..., Said], site: OpenSite) -> None:
    name = ask(site, 3, done=1, failed=1, untouched=1)
    site.store.rollouts.set(name, state=RolloutState.failed, reason="1 hosts failed", finished=time.time())
    _, out, _ = say("run", "list")
    assert "o-20261120-1" in out
    assert "3 hosts" in out
    _, out, _ = say("run", "show", name)
    assert "1 done, 1 failed, 1 untouched" in out
    assert "report: nothing was heard" in out
    data = json.loads(say("run", "show", name, "-o", "json")[1])
    assert [h["state"] for h in data[0]["hosts"]] == ["done", "failed", "untouched"]
    code, out, err = say("run", "watch", name)
    assert code == 1
    assert "n001  failed: report" in out
    assert "run show" in err


def test_pause_and_resume_from_the_command_line(say: Callable[..., Said], site: OpenSite) -> None:
    name = ask(site, 2, waiting=2)
    assert say("run", "pause", name, "--reason", "lunch")[0] == 0
    record = site.store.rollouts.get(name)
    assert record.state is RolloutState.paused
    assert "lunch" in record.reason
    assert say("run", "pause", name)[0] == 2
    assert say("run", "pause", "r-20261120-1")[0] == 2
    rollouts.cancel(site, name)
    assert say("run", "resume", name)[0] == 2
