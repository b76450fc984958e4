"""Power and boot override of a system: reading them with care, changing them through sushy's System."""

from __future__ import annotations

from typing import Any

from metalimmu.bmc import answers
from metalimmu.bmc.ask import Asking
from metalimmu.bmc.document import Doc
from metalimmu.bmc.quirks import Quirks
from metalimmu.bmc.redfish_service import RESET, Connected
from metalimmu.bmc.tree import Tree
from metalimmu.errors import BmcBroken, BmcUnsupported
from metalimmu.observed.types import BootEnabled, BootMode, BootOverride, BootTarget, PowerAction, PowerState

ENABLED = "BootSourceOverrideEnabled"
TARGET = "BootSourceOverrideTarget"
MODE = "BootSourceOverrideMode"
URI = "HttpBootUri"
ALLOWED = "@Redfish.AllowableValues"

CD_WORDS = frozenset({"Cd", "UsbCd", "UefiCd", "UefiUsbCd", "CD/DVD"})
"""All mean the virtual drive (X10SDV knows most of them): read back as Cd."""

EQUIVALENT: dict[PowerAction, tuple[str, ...]] = {
    PowerAction.on: ("On", "ForceOn"),
    PowerAction.force_off: ("ForceOff",),
    PowerAction.graceful_shutdown: ("GracefulShutdown",),
    PowerAction.graceful_restart: ("GracefulRestart",),
    PowerAction.force_restart: ("ForceRestart", "PowerCycle"),
    PowerAction.power_cycle: ("PowerCycle",),  # a ForceRestart takes no power away: not the same
}
"""What does the same, the best first."""


def power_state(system: Doc) -> PowerState:
    """Raises BmcBroken for a word that DSP0268 does not have."""
    text = system.text("PowerState")
    if not text and not system.has("PowerState"):
        return PowerState.unknown
    try:
        return PowerState(text)
    except ValueError:
        raise BmcBroken(f"{system.uri}: PowerState is {answers.clean(repr(system.raw('PowerState')), 60)}") from None


def reset_types(tree: Tree, system: Doc) -> Asking[frozenset[str]]:
    """Inline, or behind ActionInfo (Supermicro, OpenBMC); empty when the BMC does not say. Raises BmcUnsupported."""
    action = system.part("Actions", RESET)
    if not action.has("target"):
        raise BmcUnsupported(f"{system.uri} has no reset action: its power cannot be switched")
    inline = action.texts(f"ResetType{ALLOWED}")
    info = action.text("@Redfish.ActionInfo")
    if inline or not info:
        return frozenset(inline)
    known = parameters((yield from tree.read(info)))
    return frozenset(known.get("ResetType", Doc({}, info)).texts("AllowableValues"))


def parameters(info: Doc) -> dict[str, Doc]:
    """The parameters of an ActionInfo by name."""
    found = [Doc(p, info.uri) for p in info.items("Parameters") if isinstance(p, dict)]
    return {p.text("Name"): p for p in found}


def power_actions(allowed: frozenset[str]) -> frozenset[PowerAction]:
    return frozenset(a for a, words in EQUIVALENT.items() if not allowed or allowed & set(words))


def set_power(service: Connected, action: PowerAction) -> None:
    import sushy

    from metalimmu.bmc.sushy_bridge import translated

    tree = service.tree()
    system = service.run(service.system(tree))
    allowed = service.run(reset_types(tree, system))
    word = next((w for w in EQUIVALENT[action] if not allowed or w in allowed), None)
    if word is None:
        raise BmcUnsupported(
            f"{system.uri} cannot do {action}; it can {', '.join(sorted(allowed))}", hint="use another power action"
        )
    target = system.text("Actions", RESET, "target")
    reset = {"target": target, f"ResetType{ALLOWED}": sorted(allowed) or [r.value for r in sushy.ResetType]}
    with translated(f"{action} of {system.uri}"):
        _sushy_system(service, system, {"Actions": {RESET: reset}}).reset_system(sushy.ResetType(word))


def boot_override(system: Doc, quirks: Quirks) -> BootOverride:
    """Raises BmcUnsupported when there is none, BmcBroken when it cannot be read."""
    boot = system.part("Boot")
    if not boot.has(ENABLED) and not boot.has(TARGET):
        raise BmcUnsupported(f"{system.uri} has no boot override")
    enabled = _one_of(BootEnabled, boot, ENABLED) or BootEnabled.disabled
    word = boot.text(TARGET)
    target: BootTarget | str = word or BootTarget.none
    if word in CD_WORDS:
        target = BootTarget.cd
    elif word in {t.value for t in BootTarget}:
        target = BootTarget(word)
    if quirks.no_override_is and word == quirks.no_override_is:
        enabled, target = BootEnabled.disabled, BootTarget.none
    allowed = boot.texts(ENABLED + ALLOWED)
    return BootOverride(
        enabled=enabled,
        target=target,
        mode=_one_of(BootMode, boot, MODE),
        once_allowed=not allowed or "Once" in allowed,
        continuous_allowed=not allowed or "Continuous" in allowed,
        targets=boot.texts(TARGET + ALLOWED),
        takes_uri=URI in boot.data,
        uri=boot.text(URI),
    )


def _one_of(kind: Any, boot: Doc, key: str) -> Any:
    text = boot.text(key)
    if not text and not boot.raw(key):
        return None
    try:
        return kind(text)
    except ValueError:
        raise BmcBroken(f"{boot.uri}: {key} is {answers.clean(repr(boot.raw(key)), 60)}") from None


def set_boot_override(
    service: Connected, target: BootTarget, enabled: BootEnabled, mode: BootMode | None, *, uri: str = ""
) -> None:
    import sushy

    from metalimmu.bmc.sushy_bridge import translated

    tree = service.tree()
    system = service.run(service.system(tree))
    quirks = service.run(service.quirks(tree))
    boot = system.part("Boot")
    now = boot_override(system, quirks)
    if (enabled is BootEnabled.once and not now.once_allowed) or (
        enabled is BootEnabled.continuous and not now.continuous_allowed
    ):
        raise BmcUnsupported(f"{system.uri} takes no override {enabled}; it takes {_listed(boot, ENABLED)}")
    word = _target_word(boot, target, quirks)
    clean = {k: boot.text(k) or None for k in (ENABLED, TARGET, MODE, URI) if k in boot.data}
    # Named, so that sushy neither stumbles over a missing list nor chooses another word than ours.
    clean[TARGET + ALLOWED] = [word] if word else []  # type: ignore[assignment]
    document: dict[str, Any] = {"Boot": clean}
    if quirks.boot_on == "settings" and system.link("@Redfish.Settings", "SettingsObject"):
        document["@Redfish.Settings"] = system.raw("@Redfish.Settings")
    with translated(f"boot override of {system.uri}"):
        _sushy_system(service, system, document).set_system_boot_options(
            target=sushy.BootSource(word) if word else None,
            enabled=sushy.BootSourceOverrideEnabled(enabled.value),
            # A BMC without the property refuses it; one that has it (AMI, Supermicro) may fall back to Legacy without.
            mode=sushy.BootSourceOverrideMode(mode.value) if mode and now.mode else None,
            http_boot_uri=uri if uri and now.takes_uri else None,
        )


def _target_word(boot: Doc, target: BootTarget, quirks: Quirks) -> str | None:
    """The BMC's word for `target`; None only for no target at all where it has no word for that."""
    allowed = boot.texts(TARGET + ALLOWED)
    words: tuple[str, ...] = (target.value,)
    if target is BootTarget.cd:
        words = quirks.cd_targets
    elif target is BootTarget.none and quirks.no_override_is:
        words = (quirks.no_override_is,)
    if not allowed:
        return words[0]
    word = next((w for w in words if w in allowed), None)
    if word is None and target is not BootTarget.none:
        raise BmcUnsupported(f"{boot.uri} cannot boot from {target}; it can from {_listed(boot, TARGET)}")
    return word


def _listed(boot: Doc, key: str) -> str:
    return ", ".join(boot.texts(key + ALLOWED)) or "nothing it names"


def _sushy_system(service: Connected, system: Doc, document: dict[str, Any]) -> Any:
    """Sushy's System from the few cleaned fields that the change at hand needs."""
    from sushy.resources.system.system import System

    from metalimmu.bmc.sushy_bridge import Bridge, known

    answer = known({"@odata.id": system.uri, "Id": system.text("Id") or "system"} | document, system.headers)
    return System(Bridge(service.connector, {system.uri: answer}), system.uri)
