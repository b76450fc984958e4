"""Images that are booted and not written by our agent: which steps a run has, what proves it, what must be said before. Pure.

=========  =======================================  ===============================================================
kind       what is booted                           proven by
=========  =======================================  ===============================================================
disk       our ramdisk, whose agent writes          the disk read back, and the new system's own report
installer  somebody's installer, with our answers   it said who it is, and that it has finished; then its new system
live       a system that runs from memory or media  its own report
iso        a vendor's ISO, as it is                 its media were read; then what the role's proof says
=========  =======================================  ===============================================================
"""

from __future__ import annotations

from metalimmu.desired.types import HostSpec
from metalimmu.errors import ImageError
from metalimmu.plan.types import ImageFacts, Plan, PlanStep

DEPLOYED = ("disk", "installer", "live", "iso")

_END = ("report", "eject", "prove", "health", "undrain")
_AFTER_POWER = {
    "installer": ("fetch", "install", "eject", "boot", "report", "prove", "health", "undrain"),
    "live": ("read", *_END),
    "iso": ("read", "quiet", *_END),
}

TITLES = {
    "clear": "clear the override",
    "fetch": "installer asks for its answers",
    "install": "installer installs",
    "read": "machine reads its media",
    "quiet": "media are read no more",
}
ESTIMATE = {"clear": 5.0, "fetch": 240.0, "install": 1200.0, "read": 240.0, "quiet": 900.0}


def names(image: ImageFacts, spec: HostSpec, of_disk: tuple[str, ...]) -> tuple[str, ...]:
    """The steps of a run, before those are left out that the host's documents do not ask for. `of_disk`: those of the
    kind that is written.
    """
    if image.kind == "disk":
        return of_disk
    found = (*of_disk[: of_disk.index("power") + 1], *_AFTER_POWER[image.kind])
    if image.kind == "installer" and image.from_media:  # it would lose what it runs from
        found = tuple("clear" if n == "eject" else n for n in found)
        at = found.index("prove")
        found = (*found[:at], "eject", *found[at:])
    if image.kind == "installer" and not image.answers:
        found = tuple("read" if n == "fetch" else n for n in found)
    if stays(image):
        found = tuple(n for n in found if n != "eject")
    if image.kind == "iso" and spec.proof.by != "none":
        found = tuple(n for n in found if n != "quiet")
    return found


def stays(image: ImageFacts) -> bool:
    """Do the media stay in while the machine runs? Then they are served until the host's next run."""
    return image.kind == "live" and image.from_media


def limits(lim: dict[str, float]) -> dict[str, float]:
    """Of the steps of these kinds, seconds."""
    install = lim.get("install", 7200.0)
    return {
        "fetch": lim["check_in"],
        "read": lim["check_in"],
        "install": install,
        "quiet": install,
        "clear": lim["media"] + lim["bmc"],
    }


def boots(image: ImageFacts) -> frozenset[str]:
    """Steps that start the machine."""
    return frozenset({"power", "boot"}) if image.kind in ("disk", "installer") else frozenset({"power"})


def first_sign(plan: Plan) -> PlanStep:
    """The step that waits for a machine to show that it has booted what it was to boot."""
    return next(s for s in plan.steps if s.name in ("check-in", "fetch", "read"))


def check(spec: HostSpec, image: ImageFacts) -> None:
    """Raises ImageError when this can never be right for this host."""
    if image.kind not in DEPLOYED:
        raise ImageError(
            f"{image.ref} is of kind {image.kind}", hint=f"a reimage takes images of kind {', '.join(DEPLOYED)}"
        )
    if image.kind == "iso" and spec.proof.by in ("report", "phone_home"):
        raise ImageError(
            f"{image.ref} is a vendor's ISO, served as it is: it cannot know where to report",
            hint="set `proof:` in the role: {by: ssh, ...} asks what it has installed, {by: none} proves nothing",
        )


def question(host: str, image: ImageFacts) -> str:
    """What an operator agrees to."""
    return {
        "disk": f"Erase {host} and write {image.ref}?",
        "installer": f"Let {image.ref} erase {host} and install?",
        "live": f"Restart {host} into {image.ref}?",
        "iso": f"Boot {host} from {image.ref}, whatever it does to the disks?",
    }.get(image.kind, f"Install {image.ref} on {host}?")


def warnings(spec: HostSpec, image: ImageFacts) -> list[str]:
    said = []
    if image.kind == "installer":
        said.append("the installer writes the disk, and nothing reads it back: what is proven is what it says")
        if image.answers not in ("", "esxi") and not any(spec.root_disk.values()):
            said.append("no root_disk is named: the installer takes the only disk, and none where there are several")
        if not image.answers:
            said.append("the installer asks for no answers: somebody must answer it at its console")
    if stays(image):
        said.append("the live system runs from its media, which stay in until the next run of this host")
    elif image.kind == "live":
        said.append("the live system is in memory only: at its next restart the machine boots its disk")
    if image.kind == "iso":
        said.append(
            "the ISO does what its vendor made it do, to any disk; metalimmu serves it and sees that it is read"
        )
    return said
