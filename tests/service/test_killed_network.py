"""`kill -9` of the controller around the steps that a boot from the network has of its own, and around a change of method."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from test_killed import killed_and_resumed

NOT_TAKEN = ("insert_media", "BmcRefused", None)


def test_resume_finishes_a_boot_from_the_network(tmp_path: Path) -> None:
    cases = [("offer", "after"), ("pxe", "after"), ("withdraw", "after")]
    for found in killed(tmp_path, cases, boot="pxe"):
        assert (found["method"], found["boots"], found["chunks"]) == ("pxe", 2, 4), found


def test_resume_finishes_a_boot_by_uefi_http(tmp_path: Path) -> None:
    targets = ("None", "Cd", "Pxe", "UefiHttp")
    for found in killed(tmp_path, [("http-boot", "after")], boot="uefi-http", targets=targets):
        assert (found["method"], found["boots"], found["chunks"]) == ("uefi-http", 2, 4), found


def test_a_machine_that_asked_while_nobody_was_there_is_started_again(tmp_path: Path) -> None:
    """iPXE asks a few times and then boots the disk: one boot more, when the controller was away for long."""
    for found in killed(tmp_path, [("power", "after")], boot="pxe"):
        assert (found["method"], found["chunks"]) == ("pxe", 4), found
        assert found["boots"] in (2, 3), found


def test_resume_finishes_what_has_fallen_back(tmp_path: Path) -> None:
    cases = [("insert", "after")]
    for found in killed(tmp_path, cases, fault=NOT_TAKEN, boot=["virtual-media", "pxe"]):
        assert (found["method"], found["boots"], found["chunks"]) == ("pxe", 2, 4), found


def killed(folder: Path, cases: list[tuple[str, str]], **how: Any) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(lambda c: killed_and_resumed(folder / f"{c[0]}-{c[1]}", *c, **how), cases))
