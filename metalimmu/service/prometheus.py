"""An instant query of Prometheus (https://prometheus.io/docs/prometheus/latest/querying/api/), and whether its answer fits."""

from __future__ import annotations

import json
import math
from typing import Any
from urllib.parse import urlencode

from metalimmu.desired.hook_words import fits
from metalimmu.desired.hooks import Prometheus
from metalimmu.log import redact
from metalimmu.service.ask import Heard
from metalimmu.service.said import readable

LARGEST = 1 << 20  # bytes of an answer: a query for one host's health has a few samples


def url(server: str, query: str) -> str:
    return f"{server.rstrip('/')}/api/v1/query?{urlencode({'query': query})}"


def judge(heard: Heard, wanted: Prometheus) -> tuple[bool, str]:
    """Is it good, and a line that says why. An answer without samples is not good: nobody has measured."""
    try:
        answer = json.loads(heard.body)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or heard.status == 0:
        return False, heard.words if heard.status != 200 else "the answer is not Prometheus's JSON"
    if answer.get("status") != "success":
        return False, _short(f"Prometheus says {answer.get('errorType', heard.words)}: {answer.get('error', '')}")
    if heard.more:
        return False, f"more than {LARGEST >> 10} KiB of samples: make the query narrower"
    samples = _samples(answer.get("data"))
    if samples is None:
        return False, "the query gives no instant vector or scalar"
    if not samples:
        return False, "the query gives no sample"
    for name, value in samples:
        if not _fits(value, wanted):
            return False, _short(f"{name} is {value:g}, wanted {fits(wanted)}")
    values = sorted(v for _, v in samples)
    said = f"{values[0]:g}" if values[0] == values[-1] else f"{values[0]:g} to {values[-1]:g}"
    return True, said + (f" of {len(samples)} samples" if len(samples) > 1 else "")


def _fits(value: float, wanted: Prometheus) -> bool:
    """NaN fits nothing."""
    return (
        not math.isnan(value)
        and (wanted.at_least is None or value >= wanted.at_least)
        and (wanted.at_most is None or value <= wanted.at_most)
        and (wanted.equals is None or value == wanted.equals)
    )


def _samples(data: Any) -> list[tuple[str, float]] | None:
    kind = data.get("resultType") if isinstance(data, dict) else None
    result = data.get("result") if isinstance(data, dict) else None
    try:
        if kind == "scalar":
            return [("the value", float(result[1]))]  # type: ignore[index]
        if kind == "vector":
            return [(_name(s["metric"]), float(s["value"][1])) for s in result]  # type: ignore[union-attr]
    except (TypeError, ValueError, KeyError, IndexError, AttributeError):
        pass
    return None


def _name(metric: dict[str, str]) -> str:
    labels = ", ".join(f"{k}={v}" for k, v in metric.items() if k != "__name__")
    return f"{metric.get('__name__', '')}{{{labels}}}"


def _short(text: str) -> str:
    return " ".join(readable(redact(text).encode()).split())[:300]
