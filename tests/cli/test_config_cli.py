"""`config show | render | diff | push | withdraw` as an operator types them, on a simulated machine."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from config_rig import NEWER, SECRET, USER, Site, deployed, record

from metalimmu.main import run


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """The command line and the engine log to standard error, which is another one in each test."""
    loggers = [logging.getLogger(name) for name in ("", "dbos")]
    before = [logger.handlers[:] for logger in loggers]
    yield
    for logger, handlers in zip(loggers, before, strict=True):
        logger.handlers[:] = handlers


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_from_deployed_to_changed_to_pushed(
    tmp_path: Path, stack: ExitStack, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(tmp_path, 2, template=USER + "password: {{ secret('file:db-password') | tojson }}\n")
    at = ["--site", str(site.rack.site)]

    def said(*args: str, status: int = 0) -> str:
        assert run([*args, *at]) == status, capsys.readouterr()
        got = capsys.readouterr()
        assert SECRET not in got.out + got.err or "--with-secrets" in args
        return got.out + got.err

    assert "no deployment of node-1 is recorded" in said("config", "show", "node-1", status=2)
    assert "ntp: {servers: [ntp1]}" in said("config", "render", "node-1")
    deployed(site, stack)
    shown = said("config", "show", "node-1")
    assert f"digest: {record(site).config_digest}" in shown
    assert 'password: "(secret file:db-password)"' in shown
    assert "secrets: file:db-password" in shown
    assert json.loads(said("config", "show", "node-1", "-o", "json"))[0]["digest"] == record(site).config_digest
    assert SECRET in said("config", "render", "node-1", "--with-secrets")
    assert SECRET in said("config", "render", "node-1", "--with-secrets", "-o", "json")
    assert "match" in said("config", "diff", "node-1")

    site.role(vars={"ntp": "ntp2"})
    site.secret(NEWER)
    differs = said("config", "diff", "node-1", status=3)
    assert "-ntp: {servers: [ntp1]}" in differs
    assert '+password: "(secret file:db-password, changed)"' in differs
    assert "applied at the next reimage, or by `metalimmu config push node-1`" in differs
    one, two = _rows(said("config", "diff", "-l", "role=web", "-o", "json", status=3))
    assert (one["word"], two["word"]) == ("differs", "unknown")
    assert "config:" in said("host", "show", "node-1")

    refused = said("config", "push", "-l", "role=web", "--yes", status=1)
    assert "node-2: no deployment of node-2 is recorded" in refused
    done = said("config", "push", "-l", "role=web", "--skip-refused", "--yes")
    assert "node-1: applied" in done
    assert NEWER not in done
    assert "match" in said("config", "diff", "node-1")
    assert "node-1: has it already" in said("config", "push", "node-1")
    assert "no push waits for node-1" in said("config", "withdraw", "node-1", status=2)
    assert "push of config" in said("history", "node-1")


def test_a_push_that_fails_says_why_and_what_is_untouched(
    tmp_path: Path, stack: ExitStack, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(tmp_path)
    deployed(site, stack, config_fails="no such interface")
    site.role(vars={"ntp": "ntp2"})
    assert run(["config", "push", "node-1", "--yes", "--site", str(site.rack.site)]) == 1
    said = capsys.readouterr()
    assert "node-1: failed: no such interface" in said.out
    assert "1 of 1 hosts did not apply it: node-1" in said.err
    assert "it keeps its old config" in said.err


def _rows(text: str) -> list[dict[str, str]]:
    """Without what was said on standard error."""
    found: list[dict[str, str]] = json.JSONDecoder().raw_decode(text)[0]
    return found
