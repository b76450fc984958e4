"""What a run does with disks beside writing the image: which steps it has, what they will do, what must be said. Pure."""

from __future__ import annotations

from metalimmu.desired.types import BurnInRule, EraseRule, HostSpec
from metalimmu.desired.units import bytes_per_second, seconds, size_bytes
from metalimmu.errors import ImageError
from metalimmu.plan.types import ImageFacts, Plan
from metalimmu.wire.messages import BurnIn, Erase, RootDisk, Salvage

BURN_IN, SALVAGE, ERASE, ERASE_AFTER = "burn-in", "salvage", "erase", "erase-after"
ESTIMATE = {SALVAGE: 30.0, ERASE: 120.0, ERASE_AFTER: 120.0}
_TESTS = ("cpu", "memory", "disk", "network")
_SPARE = 600.0  # seconds beyond the tests themselves

Hints = dict[str, str | int | bool | None]


def left_out(spec: HostSpec, *, known: bool) -> dict[str, bool]:
    """By step. `known`: the host is active and proven, so it is not new to its pool."""
    whens = {rule.when for rule in spec.erase}
    return {
        BURN_IN: spec.burn_in is None or (spec.burn_in.when == "new" and known),
        SALVAGE: spec.salvage is None,
        ERASE: "before" not in whens,
        ERASE_AFTER: "after" not in whens,
    }


def limits(spec: HostSpec) -> dict[str, float]:
    """Seconds. Salvage and erase end by the stall limit: how long they take is a matter of the disk."""
    day = 24 * 3600.0
    return {BURN_IN: _burning(spec.burn_in) + _SPARE, SALVAGE: day, ERASE: day, ERASE_AFTER: day}


def estimates(spec: HostSpec) -> dict[str, float]:
    return {**ESTIMATE, BURN_IN: _burning(spec.burn_in)}


def calls(spec: HostSpec) -> dict[str, tuple[str, ...]]:
    """By step, a line for each thing that will be done."""
    said: dict[str, tuple[str, ...]] = {
        step: tuple(_erased(rule) for rule in spec.erase if rule.when == when)
        for step, when in ((ERASE, "before"), (ERASE_AFTER, "after"))
    }
    if spec.salvage:
        said[SALVAGE] = (f"{', '.join(spec.salvage.paths)}: at most {spec.salvage.limit}",)
    if spec.burn_in:
        tests = [f"{t} {getattr(spec.burn_in, t)}" for t in _TESTS if seconds(getattr(spec.burn_in, t))]
        said[BURN_IN] = (", ".join(tests),) if tests else ()
    return said


def check(spec: HostSpec, image: ImageFacts) -> None:
    """Raises ImageError when what is asked cannot be done for an image of this kind."""
    if image.kind == "disk":
        return
    asked = {"keep": spec.keep, "mirror": spec.mirrored, "erase": spec.erase, "salvage": spec.salvage}
    wanted = [f"{name}:" for name, value in asked.items() if value]
    if wanted:
        raise ImageError(
            f"{spec.name} asks for {', '.join(wanted)}, and {image.ref} is of kind {image.kind}: none of our agents runs "
            "that could do it, or keep others from writing",
            hint="use an image of kind disk, or take it out of the role",
        )


def warnings(spec: HostSpec, image: ImageFacts) -> list[str]:
    if image.kind != "disk":
        return ["the pool's burn-in is left out: it needs our ramdisk"] if spec.burn_in else []
    said = [f"all of a disk will be erased: {_erased(rule)}" for rule in spec.erase]
    if spec.mirrored:
        said.append(
            "the root is a RAID 1: the image must assemble it by itself (Debian: mdadm in its initramfs), and synchronises it "
            "in the background after its first start"
        )
    if spec.salvage and not spec.salvage.required:
        said.append("what cannot be salvaged is lost: the role does not say `required: true`")
    return said


def work(plan: Plan) -> dict[str, object]:
    """Fields of wire.Assignment. The plan's steps say whether there is a burn-in."""
    spec = plan.spec
    steps = {s.name for s in plan.steps}
    return {
        "keep": tuple(_hints(k) for k in spec.keep),
        "mirrored": spec.mirrored,
        "mirror": _hints(spec.mirror) if spec.mirror else None,
        "erase": tuple(_erase(rule) for rule in spec.erase),
        "salvage": _salvage(spec),
        "burn_in": burn_in(spec.burn_in) if spec.burn_in and BURN_IN in steps else None,
    }


def burn_in(rule: BurnInRule) -> BurnIn:
    rates = {f"min_{t}": bytes_per_second(v) for t in _TESTS if (v := getattr(rule, f"min_{t}"))}
    return BurnIn(
        **{t: seconds(getattr(rule, t)) for t in _TESTS},
        **rates,
        min_bytes=size_bytes(rule.min_size) if rule.min_size else 0,
        min_cpus=rule.min_cpus or 0,
        max_corrected=rule.max_corrected,
        max_nic_errors=rule.max_nic_errors,
    )


def _salvage(spec: HostSpec) -> Salvage | None:
    rule = spec.salvage
    return Salvage(tuple(rule.paths), size_bytes(rule.limit), rule.required) if rule else None


def _erase(rule: EraseRule) -> Erase:
    if rule.disk == "root":
        return Erase(None, rule.how, rule.when)
    given = {f: getattr(rule.disk, f) for f in rule.disk.__struct_fields__}
    sizes = {f: size_bytes(given[f]) for f in ("min_size", "max_size") if given[f]}
    return Erase(_hints({**given, **sizes}), rule.how, rule.when)


def _hints(given: Hints) -> RootDisk:
    return RootDisk(**given)  # type: ignore[arg-type]


def _erased(rule: EraseRule) -> str:
    if rule.disk == "root":
        return f"root disk: {rule.how}"
    given = {f: v for f in rule.disk.__struct_fields__ if (v := getattr(rule.disk, f)) is not None}
    return f"{', '.join(f'{k} {v}' for k, v in given.items())}: {rule.how}"


def _burning(rule: BurnInRule | None) -> float:
    return sum(seconds(getattr(rule, t)) for t in _TESTS) if rule else 0.0
