"""The texts of `merge`: fields put into documents, hosts appended to them. The result is read again before it counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from yaml.nodes import MappingNode, SequenceNode

from metalimmu.desired import documents
from metalimmu.desired.insert import BREAKS, CannotInsert, Insertion, apply, dumped, insertions
from metalimmu.desired.known_hosts import Fields, Known, hosts, united
from metalimmu.desired.problems import visible
from metalimmu.errors import SiteError, UsageError

HEAD = """\
# Hosts that metalimmu found: review names and addresses, then give them roles and pools. Found again, they get the fields
# that are missing here; nothing that stands here is changed.
"""


class Missing(NamedTuple):
    """What one host's document lacks."""

    known: Known
    fields: Fields


class _Planned(NamedTuple):
    missing: Missing
    insertions: list[Insertion]


def filled(file: str, data: bytes, missing: Sequence[Missing]) -> tuple[str, list[Missing], list[tuple[Missing, str]]]:
    """(text, what was put in, what was not and why). The text is empty where nothing was put in."""
    text = data.decode()
    why = _untouchable(file, text)
    if why:
        return "", [], [(m, why) for m in missing]
    lines = text.splitlines(keepends=True)
    planned: list[_Planned] = []
    left: list[tuple[Missing, str]] = []
    for one in missing:
        try:
            planned.append(_Planned(one, _places(one, lines)))
        except CannotInsert as exc:
            left.append((one, str(exc)))
    sound = _sound(file, lines, planned)
    if _misread(file, lines, sound):  # each of them alone reads well, and all of them together do not
        sound = []
    kept = {p.missing.known.key for p in sound}
    left += [(p.missing, "the result would not be what was meant") for p in planned if p.missing.known.key not in kept]
    return (_text(lines, sound) if sound else ""), [p.missing for p in sound], left


def _untouchable(file: str, text: str) -> str:
    if file.endswith(".csv"):
        return "a table is not written to"
    if any(c in text.replace("\r\n", "\n") for c in BREAKS):
        return "the file has line ends of a rare kind"
    return ""


def _places(missing: Missing, lines: list[str]) -> list[Insertion]:
    """Raises CannotInsert."""
    node = missing.known.source.node(missing.known.path)
    if not isinstance(node, MappingNode):
        raise CannotInsert("the host is no mapping")
    return list(insertions(node, missing.fields, lines))


def _text(lines: list[str], planned: Sequence[_Planned]) -> str:
    return apply(lines, [i for p in planned for i in p.insertions])


def _sound(file: str, lines: list[str], planned: list[_Planned]) -> list[_Planned]:
    """Those whose result reads as it was meant. Few readings for many hosts: a file has up to ten thousand."""
    wrong = _misread(file, lines, planned)
    if not wrong:
        return planned
    rest = [p for p in planned if p.missing.known.key not in wrong]
    if rest:
        return _sound(file, lines, rest)
    if len(planned) == 1:
        return []
    half = len(planned) // 2
    return _sound(file, lines, planned[:half]) + _sound(file, lines, planned[half:])


def _misread(file: str, lines: list[str], planned: Sequence[_Planned]) -> set[object]:
    """Keys of the hosts that would not read as they were meant: all of them when the text cannot be read at all."""
    if not planned:
        return set()
    try:
        now = {known.key: known.value for known in hosts({file: _text(lines, planned).encode()})}
    except SiteError:
        return {p.missing.known.key for p in planned}
    return {
        known.key for known, fields in (p.missing for p in planned) if now.get(known.key) != united(known.value, fields)
    }


def appended(target: str, before: bytes, new: Sequence[tuple[Fields, str]]) -> str:
    """The text with these hosts (fields, comment) at its end. Raises UsageError for a file that cannot take them."""
    if not target.endswith(".yaml"):
        raise UsageError(f"{target}: new hosts are written as YAML", hint="name a file that ends with .yaml")
    text = before.decode()
    root = documents.compose(before) if text.strip() else None
    if root is not None and (not isinstance(root, SequenceNode) or (root.flow_style and root.value)):
        raise UsageError(
            f"{target} is not a list with one host per item: nothing can be appended to it",
            hint="name another file, or begin each host with a dash",
        )
    if root is not None and root.flow_style:  # `[]`
        text, root = "", None
    indent = " " * (root.start_mark.column if root is not None else 0)
    if text and not text.endswith("\n"):
        text += "\n"
    after = (text or HEAD) + "".join(_item(fields, comment, indent) for fields, comment in new)
    names = [known.name for known in hosts({target: after.encode()})]
    if names[-len(new) :] != [fields["name"] for fields, _ in new]:
        raise UsageError(f"{target}: what would be appended does not read back", hint="name another file")
    return after


def _item(fields: Mapping[str, object], comment: str, indent: str) -> str:
    head = f"{indent}# {visible(comment, 200)}\n" if comment else ""
    lines = [f"{indent}  {name}: {dumped(value)}\n" for name, value in fields.items()]
    lines[0] = f"{indent}- {lines[0].lstrip()}"
    return f"\n{head}{''.join(lines)}"
