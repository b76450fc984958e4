"""A report as one HTML file that loads nothing and runs nothing. Pure, but for its own two files of template and style.

All text is escaped by jinja2. Beside that the page's own Content-Security-Policy allows no script, no request, and no
style but the one whose hash it names: text that would find a hole in the escaping still could not act.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from functools import cache
from pathlib import Path
from typing import Any

from metalimmu.service.report import charts
from metalimmu.service.report.data import ReportData

_TEMPLATES = Path(__file__).parent / "templates"

# C0 and C1 controls, and marks that turn the direction of text: a value must not look like another one.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")

STATES = {
    "match": ("as it must be", "good"),
    "drift": ("drifted", "bad"),
    "waived": ("drifted, and waived", "waived"),
    "unknown": ("unknown", "unsure"),
    "no-profile": ("no profile", "none"),
}
SEVERITIES = {"critical": "critical", "warning": "warning", "info": "info"}


def render(data: ReportData) -> str:
    """The whole document."""
    css = _css()
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    html: str = _template().render(
        d=data,
        css=css,
        csp=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        states=STATES,
        state_bar=charts.bar(_states(data.states)),
        stack=charts.stack(data.by_severity, data.times),
        pool_sparks=[charts.spark(line) for line in data.by_pool],
        setting_sparks=[charts.spark(line) for line in data.by_setting],
        most_hosts=max((s.hosts for s in data.settings), default=1),
        box=charts,
    )
    return html


@cache
def _css() -> str:
    return (_TEMPLATES / "report.css").read_text(encoding="utf-8")


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    env = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: _visible(value) if type(value) is str else value,
    )
    env.filters |= {"when": _when, "ago": _ago, "text": _text, "number": _number, "bar": charts.bar, "states": _states}
    env.globals["style"] = Markup(f"<style>{_css()}</style>")  # noqa: S704  # our own file
    return env.get_template("report.html.j2")


def _states(found: dict[str, int]) -> dict[str, int]:
    """In the order of STATES."""
    return {state: found.get(state, 0) for state in STATES}


def _when(at: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at)) if at else "-"


def _ago(at: float, now: float) -> str:
    seconds = max(0.0, now - at)
    for size, name in ((86400.0, "day"), (3600.0, "hour"), (60.0, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {name}{'' if count == 1 else 's'}"
    return "less than a minute"


def _text(value: str, most: int = 200) -> str:
    return value if len(value) <= most else f"{value[:most]}…"


def _visible(value: str) -> str:
    """What cannot be seen is made visible, wherever it is printed."""
    return _INVISIBLE.sub(lambda m: f"\\u{ord(m[0]):04x}", value)


def _number(value: float) -> str:
    """Thin spaces between thousands, so that numbers can be read and copied."""
    return f"{value:,.0f}".replace(",", "\u202f")
