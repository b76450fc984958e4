"""What a person reads who said no, or pressed Ctrl-C while the worker was still starting."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from rack import Rack

from metalimmu import main
from metalimmu.service.planning import plan_host
from metalimmu.service.runs import submit
from metalimmu.service.site import OpenSite
from metalimmu.service.worker import Worker
from metalimmu.store.records import RunStatus


@pytest.fixture(autouse=True)
def terminated() -> Iterator[None]:
    """`main.run` takes SIGTERM for the whole process."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[OpenSite]:
    opened = OpenSite(Rack(tmp_path).site)
    yield opened
    opened.close()


def test_no_at_the_question_changes_nothing(
    site: OpenSite, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert main.run(["--site", str(site.folder), "reimage", "node-1"]) == 1
    assert "aborted: nothing was changed" in capsys.readouterr().err
    assert site.store.runs() == []


def test_ctrl_c_while_the_worker_starts_leaves_the_run_for_resume(
    site: OpenSite, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = submit(site, plan_host(site, "node-1"))

    def pressed(_: Worker) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Worker, "_start", pressed)
    assert main.run(["--site", str(site.folder), "run", "resume", run.id]) == 130
    said = capsys.readouterr().err
    assert f"`metalimmu run resume {run.id}` finishes it" in said
    assert "nothing was changed" not in said
    assert "another process" not in said
    assert site.store.run(run.id).status is RunStatus.interrupted
