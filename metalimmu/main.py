"""Composition root: the command line, with every error turned into words and an exit status."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Sequence

import click

from metalimmu.cli import cli
from metalimmu.errors import MetalimmuError

INTERRUPTED = 130


def run(args: Sequence[str]) -> int:
    """Exit status: 0 done, 1 failed or declined, 2 usage or documents, 130 interrupted; and of commands that compare:
    3 drift, 4 more unknown hosts than allowed.
    """
    # A stopped service or container must log out of its BMCs and leave its runs for `resume`, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # The documents of a fleet are a million objects that stay. Looking through them for garbage after every 700 new ones took
    # a third of the time of a plan for 10,000 hosts; the memory at its peak is the same.
    gc.set_threshold(20_000, 20, 50)
    if sys.stdout is None:  # closed by the caller
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    try:
        status = cli.main(args=list(args), prog_name="metalimmu", standalone_mode=False, color=_color())
    except SystemExit as exc:  # click's, when whoever reads our output has gone: `| head -1` is no failure
        return 0 if type(sys.stdout).__name__ == "PacifyFlushWrapper" else int(exc.code or 0)
    except MetalimmuError as exc:
        return say(exc)
    except click.Abort as exc:
        # click raises it for "no" at a question, where nothing was begun, and for Ctrl-C anywhere.
        interrupted = isinstance(exc.__cause__, KeyboardInterrupt)
        click.echo("interrupted" if interrupted else "aborted: nothing was changed", err=True)
        return INTERRUPTED if interrupted else 1
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except OSError as exc:
        click.echo(f"error: {exc.strerror or exc}" + (f": {exc.filename}" if exc.filename else ""), err=True)
        return 1
    return status if isinstance(status, int) else 0  # click returns what a click.exceptions.Exit carries


def _color() -> bool | None:
    """https://no-color.org; None lets click look for a terminal."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


def say(exc: MetalimmuError) -> int:
    """An error for people: what, every detail, and what to do next. Secrets are taken out."""
    from metalimmu.log import redact

    click.echo(click.style("error: ", fg="red", bold=True) + redact(exc.message), err=True, color=_color())
    for line in (*getattr(exc, "problems", ()), *str(getattr(exc, "output", "")).splitlines()[-10:]):
        click.echo("  " + redact(str(line)), err=True)
    click.echo(click.style("hint:  ", bold=True) + redact(exc.hint), err=True, color=_color())
    return exc.exit_status
