"""`kill -9` of the controller around and inside of hooks: each is repeated until it has ended once, with the same key."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hook_rig import gone, script, until
from rack import Rack
from test_killed import controller

from metalimmu.service.site import OpenSite
from metalimmu.store.records import RunStatus

# One line for each call: phase, hook, key, attempt.
NOTE = 'echo "$METALIMMU_PHASE $METALIMMU_HOOK $METALIMMU_HOOK_KEY $METALIMMU_ATTEMPT" >> notes'
HOOKS = {
    "before": [{"name": "lb", "command": "./note", "undo": "./note"}, {"name": "dns", "command": "./note"}],
    "after": ["./note"],
}
HEALTH = {"command": "true", "every": "100ms", "for": "200ms"}


def rack_with(folder: Path, stack: ExitStack, **role: Any) -> Rack:
    rack = Rack(folder)
    script(rack.site, NOTE, "note")
    rack.write("roles/web.yaml", {"image": "web@1", "ramdisk": "fake", "hooks": HOOKS, "health": HEALTH, **role})
    rack.power_up(stack, pace=0.3)
    return rack


def notes(rack: Rack) -> list[list[str]]:
    path = rack.site / "notes"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def resumed(rack: Rack) -> Any:
    again = controller(rack, "resume")
    assert again.returncode == 0, again.stderr[-2000:]
    site = OpenSite(rack.site)
    try:
        (run,) = site.store.runs()
        return run
    finally:
        site.close()


def died_after_event(folder: Path, number: int) -> list[list[str]] | None:
    with ExitStack() as stack:
        rack = rack_with(folder, stack)
        died = controller(rack, "nth event", str(number))
        if died.returncode == 0:
            return None  # it has fewer
        assert died.returncode == -9, died.stderr[-2000:]
        run = resumed(rack)
        assert run.status is RunStatus.succeeded, (number, run.error)
        found = notes(rack)
        assert {n[0] for n in found} == {"before", "after"}
        return [n for n in found if n[2].startswith(run.id)]


def test_between_any_two_lines_of_the_history(tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda n: died_after_event(tmp_path / str(n), n), range(1, 15)))
    died = [r for r in results if r is not None]
    assert 8 < len(died) < len(results)
    repeated = 0
    for calls in died:
        order = list(dict.fromkeys(c[1] for c in calls))
        assert order == ["lb", "dns", "note"]
        for name in order:
            mine = [c for c in calls if c[1] == name]
            assert len({c[2] for c in mine}) == 1, mine  # one key
            assert len(mine) <= 2, mine
            repeated += len(mine) - 1
    # What was told as begun and not as ended is called again; whether it ran before, nobody knows but the hook.
    assert repeated <= 3


def test_inside_of_a_hook(tmp_path: Path) -> None:
    """The hook goes on without its controller; whoever resumes ends it before it is called again."""
    with ExitStack() as stack:
        rack = rack_with(tmp_path, stack, hooks={"before": ["./kill"]})
        script(
            rack.site,
            'echo "$$ $METALIMMU_ATTEMPT $METALIMMU_HOOK_KEY" >> calls\n'
            '[ "$METALIMMU_ATTEMPT" = 1 ] || exit 0\n'
            "kill -9 $PPID\n"
            "exec sleep 600",
            "kill",
        )
        assert controller(rack, "run").returncode == -9
        calls = [c.split() for c in (rack.site / "calls").read_text().splitlines()]
        assert not gone(int(calls[0][0]))
        run = resumed(rack)
        assert run.status is RunStatus.succeeded, run.error
        calls = [c.split() for c in (rack.site / "calls").read_text().splitlines()]
        assert [c[1] for c in calls] == ["1", "2"]
        assert {c[2] for c in calls} == {f"{run.id}/before/1-kill"}
        until(lambda: gone(int(calls[0][0])))


def test_inside_of_a_health_check(tmp_path: Path) -> None:
    with ExitStack() as stack:
        rack = rack_with(tmp_path, stack, hooks={}, health={"command": "./kill", "every": "100ms", "for": "300ms"})
        script(rack.site, "echo >> looks; [ $(wc -l < looks) = 3 ] && kill -9 $PPID; exit 0", "kill")
        assert controller(rack, "run").returncode == -9
        run = resumed(rack)
        assert run.status is RunStatus.succeeded, run.error
        site = OpenSite(rack.site)
        (check,) = next(s for s in site.store.steps(run.id) if s.name == "health").evidence["checks"]
        host = site.store.host("node-1")
        site.close()
        assert check["good_for"] >= 0.3  # counted anew
        assert (host.state, host.proof) == ("active", "proven")


def test_inside_of_an_undo(tmp_path: Path) -> None:
    """The run has failed and is being taken back when the controller dies: the undo is called again, all others once."""
    with ExitStack() as stack:
        hooks = {
            "before": [
                {"name": "lb", "command": "./note", "undo": "./kill"},
                {"name": "dns", "command": "./note", "undo": "./note"},
                "false",
            ]
        }
        rack = rack_with(tmp_path, stack, hooks=hooks)
        script(rack.site, f'{NOTE}\n[ "$METALIMMU_ATTEMPT" = 1 ] && kill -9 $PPID\ncat > told\nexit 0', "kill")
        assert controller(rack, "run").returncode == -9
        run = resumed(rack)
        assert run.status is RunStatus.failed
        assert run.error.message == "hook false (before): exit status 1"
        assert [n[:2] + n[3:] for n in notes(rack)] == [
            ["before", "lb", "1"],
            ["before", "dns", "1"],
            ["undo", "dns", "1"],
            ["undo", "lb", "1"],
            ["undo", "lb", "2"],
        ]
        assert json.loads((rack.site / "told").read_text())["machine"] == "untouched"
