from __future__ import annotations

import msgspec
import pytest

from metalimmu.errors import BmcUnsupported, UsageError
from metalimmu.plan.method import METHODS, STEPS, TITLES, Can, as_media, choose, renamed

ALL = Can(targets=("None", "Cd", "Pxe", "UefiHttp"))
OFF = {"uefi-http": "nobody answers DHCP", "pxe": "nobody answers DHCP"}
NO_HTTP = {"uefi-http": "UEFI HTTP clients are not answered"}
STRANGER = {"uefi-http": "who asks could not be told", "pxe": "who asks could not be told"}


def can(**fields: object) -> Can:
    return msgspec.structs.replace(ALL, **fields)


def test_auto_takes_virtual_media_first_and_keeps_the_others_for_later() -> None:
    choice = choose((), ALL)
    assert (choice.method, choice.others, choice.rejected) == ("virtual-media", ("uefi-http", "pxe"), ())


@pytest.mark.parametrize(
    ("what", "method", "others"),
    [
        ({"no_media": "no licence"}, "uefi-http", ("pxe",)),
        ({"no_media": "no licence", "firmware": "bios"}, "pxe", ()),
        ({"no_media": "no licence", "targets": ()}, "pxe", ()),  # a BMC that names no targets: PXE is in all of them
        ({"no_media": "no licence", "targets": ("Cd", "Pxe")}, "pxe", ()),
        ({"targets": ("Cd",)}, "virtual-media", ()),
        ({"unserved": OFF}, "virtual-media", ()),
        ({"unserved": OFF, "takes_uri": True}, "virtual-media", ("uefi-http",)),  # needs nobody's DHCP option
        ({"unserved": NO_HTTP}, "virtual-media", ("pxe",)),
        ({"unserved": NO_HTTP, "no_media": "no licence"}, "pxe", ()),
        ({"unserved": NO_HTTP, "takes_uri": True}, "virtual-media", ("uefi-http", "pxe")),
        ({"unserved": {"pxe": "BIOS"}}, "virtual-media", ("uefi-http",)),
        ({"no_network": "it is an ISO"}, "virtual-media", ()),
        ({"unknown": STRANGER}, "virtual-media", ()),
        ({"unknown": {"pxe": "no `nics:`"}}, "virtual-media", ("uefi-http",)),
    ],
)
def test_auto(what: dict[str, object], method: str, others: tuple[str, ...]) -> None:
    choice = choose((), can(**what))
    assert (choice.method, choice.others) == (method, others)
    assert len(choice.rejected) == 3 - 1 - len(others)


def test_it_says_why() -> None:
    assert choose((), can(no_media="no licence")).why == "virtual-media: no licence"
    assert choose(("pxe",), ALL).why == "asked for by name"
    assert choose(("pxe", "virtual-media"), ALL).why == "the first that is asked for"


def test_a_role_sets_its_own_order() -> None:
    choice = choose(("pxe", "virtual-media"), ALL)
    assert (choice.method, choice.others) == ("pxe", ("virtual-media",))


def test_asked_for_by_name_needs_no_dhcp_of_ours() -> None:
    """Somebody else's DHCP server may point to us: we cannot know."""
    assert choose(("pxe",), can(unserved=OFF)).method == "pxe"
    assert choose(("virtual-media", "pxe"), can(unserved=OFF)).others == ("pxe",)


@pytest.mark.parametrize(
    ("method", "what", "word"),
    [
        ("virtual-media", {"no_media": "the BMC offers no virtual CD"}, "the BMC offers no virtual CD"),
        ("uefi-http", {"firmware": "bios"}, "boots by bios"),
        ("uefi-http", {"targets": ()}, "no boot target UefiHttp"),
        ("pxe", {"targets": ("Cd",)}, "no boot target Pxe"),
        ("pxe", {"unknown": STRANGER}, "who asks could not be told"),
        ("pxe", {"no_network": "web@1 is a whole ISO"}, "whole ISO"),
    ],
)
def test_what_cannot_be_is_refused_by_its_reason(method: str, what: dict[str, object], word: str) -> None:
    with pytest.raises(BmcUnsupported, match=word):
        choose((method,), can(**what))


def test_when_nothing_is_left_every_reason_is_said() -> None:
    with pytest.raises(BmcUnsupported) as said:
        choose((), can(no_media="no licence", unserved=OFF))
    assert all(f"{method}: " in said.value.message for method in METHODS)
    assert "netboot" in said.value.hint


def test_an_unknown_word_is_an_error() -> None:
    with pytest.raises(UsageError, match="floppy"):
        choose(("floppy",), ALL)


def test_steps_are_the_same_but_for_three() -> None:
    disk = ("preflight", "insert", "override", "power", "eject", "boot")
    assert renamed(disk, "pxe") == ("preflight", "offer", "pxe", "power", "withdraw", "boot")
    assert tuple(as_media(n) for n in renamed(disk, "uefi-http")) == disk
    assert renamed(disk, "virtual-media") == disk
    assert set(TITLES) == {n for m in ("pxe", "uefi-http") for n in STEPS[m]}
