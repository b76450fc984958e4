"""What the store keeps of a switch's deployment."""

from __future__ import annotations

from typing import Any

from metalimmu.store.records import Record
from metalimmu.wire.messages import RunTimeConfig


class SwitchRecord(Record, frozen=True, kw_only=True):
    """One switch being made into one NOS image. Of its secret only the SHA-256 is kept; boot.tokens derives it again."""

    id: str
    run: str
    host: str
    secret_hash: str
    method: str  # onie | two-slot
    image: str
    digest: str
    size: int
    serial: str
    base_mac: str
    mgmt_mac: str
    platform: str
    fence: int
    installs: int  # deliveries that are allowed
    config: RunTimeConfig | None = None  # what ZTP serves, with marks instead of secrets
    config_digest: str = ""
    before: dict[str, Any] = {}  # SwitchFacts without its config, before anything was done
    armed: bool = False  # would its request be answered with the image?
    asked: int = 0  # requests that came from this switch
    asked_from: str = ""  # its address then
    asked_at: float | None = None
    bytes: int = 0  # really sent
    delivered: int = 0  # times that all of it was sent
    delivered_at: float | None = None
    failures: int = 0  # deliveries after which it asked again
    refused: str = ""  # the newest request that was nearly right: who asked, and why it got nothing
    refused_at: float | None = None
    ztp_at: float | None = None  # ztp.json was fetched
    config_at: float | None = None  # config_db.json was fetched
    reported: dict[str, Any] = {}  # what report.sh has said: serial, version, host_keys
    reported_at: float | None = None
    slot: str = ""  # the new image's slot, once it is installed there
    intent: str = ""  # what was asked to restart it: recorded before it is asked
    intent_at: float | None = None
    stop: str = ""
    created: float = 0.0
    ended: float | None = None

    @property
    def went(self) -> bool:
        """Is its old NOS gone, or may it be? One that fetches an image for its other slot runs on."""
        return bool(self.intent or (self.method == "onie" and (self.asked or self.delivered)))
