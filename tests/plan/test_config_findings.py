"""The config of a machine against the site's: words, files, secrets by their hashes. Pure."""

from __future__ import annotations

from typing import Any

import pytest

from metalimmu.plan.config import SALT_FILE, Has, Says, changes, finding, masked, secrets
from metalimmu.plan.types import Word

A, B, C = "a" * 64, "b" * 64, "c" * 64
H1, H2 = "0" * 16, "1" * 16
REF = "vault:kv/web/db#password"


def has(**fields: Any) -> Has:
    given = {"deployment": "r-1", "digest": A, "files": {"user-data": "x\ny\n"}, "key": "k1", "at": 1.0, "seen": A}
    return Has(**{**given, **fields})


def says(**fields: Any) -> Says:
    return Says(**{"files": {"user-data": "x\ny\n"}, "digest": A, "key": "k1", **fields})


def secretly(value: str) -> dict[str, str]:
    return {"user-data": f"password: (secret {REF} {value})\n", SALT_FILE: "(salt)\n"}


CASES: list[tuple[str, Has | None, Says, Word, str]] = [
    ("the same", has(), says(), Word.match, ""),
    ("never deployed", None, says(), Word.unknown, "metalimmu has not deployed it"),
    (
        "another text",
        has(),
        says(files={"user-data": "x\nz\n"}, digest=B),
        Word.differs,
        "user-data changed; applied at",
    ),
    ("a file more", has(), says(files={"user-data": "x\ny\n", "n": "1"}, digest=B), Word.differs, "n added"),
    ("a file less", has(files={"user-data": "x\ny\n", "n": "1"}), says(digest=B), Word.differs, "n removed"),
    ("does not render", has(), Says(files={}, why="vars.x, which is not"), Word.unknown, "vars.x"),
    ("being deployed", has(why="it is being deployed"), says(), Word.unknown, "being deployed"),
    ("the machine says another", has(seen=C), says(), Word.differs, "the machine says that it has another config"),
    ("the machine has it already", has(seen=B), says(digest=B, files={"u": ""}), Word.match, ""),
    ("nobody has said", has(seen=""), says(), Word.match, ""),
    (
        "a push waits",
        has(pushed="a push of b waits"),
        says(digest=B, files={"u": ""}),
        Word.differs,
        "a push of b waits",
    ),
    (
        "a secret changed",
        has(files=secretly(H1)),
        says(files=secretly(H2), digest=B),
        Word.differs,
        "user-data changed",
    ),
    (
        "secrets of another key",
        has(files=secretly(H1), key="k0"),
        says(files=secretly(H2), digest=B),
        Word.unknown,
        "the site's key is not the one",
    ),
    ("another key, and no secrets", has(key="k0"), says(), Word.match, ""),
    (
        "secrets cannot be read",
        has(files=secretly(H1)),
        Says(files={"user-data": f"password: (secret {REF})\n"}, why="vault is sealed"),
        Word.unknown,
        "vault is sealed",
    ),
    (
        "secrets cannot be read, and the text differs",
        has(files=secretly(H1)),
        Says(files={"user-data": f"pass: (secret {REF})\n"}, why="vault is sealed"),
        Word.differs,
        "user-data changed",
    ),
]


@pytest.mark.parametrize(("known", "wanted", "word", "reason"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_words(known: Has | None, wanted: Says, word: Word, reason: str) -> None:
    found = finding("n1", known, wanted, now=5.0)
    assert (found.word, found.setting, found.severity, found.at) == (word, "config.digest", "warning", 5.0)
    assert reason in found.reason
    assert (word is Word.match) == (found.reason == "")
    assert H1 not in found.reason


def test_a_changed_secret_is_said_to_be_changed_and_not_shown() -> None:
    other = {"user-data": f"password: (secret {REF} {H2})\ntoken: (secret env:T {H1})\n", SALT_FILE: "(salt)\n"}
    (change,) = changes(has(files=secretly(H1)), says(files=other, digest=B))
    assert change.lines == (
        "--- deployed/user-data",
        "+++ now/user-data",
        "@@ -1 +1,2 @@",
        f"-password: (secret {REF})",
        f"+password: (secret {REF}, changed)",
        "+token: (secret env:T)",
    )
    assert secrets(other) == ["env:T", REF]
    assert masked(other["user-data"]) == f"password: (secret {REF})\ntoken: (secret env:T)\n"


def test_a_secret_that_is_the_same_makes_no_difference() -> None:
    assert changes(has(files=secretly(H1)), says(files=secretly(H1))) == []


def test_files_that_come_and_go_whole() -> None:
    found = changes(has(files={"a": "1\n"}), says(files={"b": "2\n"}))
    assert [(c.path, c.change, c.lines[-1]) for c in found] == [("a", "removed", "-1"), ("b", "added", "+2")]
    assert [c.change for c in changes(has(files={}), says(files={"empty": ""}))] == ["added"]
