"""Composition root: the command line, with every error turned into words and an exit status."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

import click

from metalimmu.cli import cli
from metalimmu.errors import MetalimmuError

INTERRUPTED = 130


def run(args: Sequence[str]) -> int:
    """Exit status: 0 done, 1 failed, 2 usage, 3 drift, 4 unknown hosts beyond what was allowed, 130 interrupted."""
    # A stopped service or container must log out of its BMCs and leave its runs for `resume`, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        cli.main(args=list(args), prog_name="metalimmu", standalone_mode=False)
    except MetalimmuError as exc:
        return say(exc)
    except click.exceptions.Exit as exc:
        return exc.exit_code
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
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    return 0


def say(exc: MetalimmuError) -> int:
    """An error for people: what, every detail, and what to do next. Secrets are taken out."""
    from metalimmu.log import redact

    click.echo(click.style("error: ", fg="red", bold=True) + redact(exc.message), err=True)
    for line in (*getattr(exc, "problems", ()), *str(getattr(exc, "output", "")).splitlines()[-10:]):
        click.echo("  " + redact(str(line)), err=True)
    click.echo(click.style("hint:  ", bold=True) + redact(exc.hint), err=True)
    return exc.exit_status
