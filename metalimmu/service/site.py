"""An opened site: its documents, its folders, and what is kept in them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from metalimmu.desired import units
from metalimmu.desired.load import load
from metalimmu.desired.resolve import resolve
from metalimmu.errors import StoreError, ToolError

if TYPE_CHECKING:
    from metalimmu.bmc.budget import Budget
    from metalimmu.bmc.ledger import LoginLedger
    from metalimmu.bmc.ports import Bmc
    from metalimmu.desired.types import HostSpec, Mode, SiteDocs
    from metalimmu.images.catalogue import Catalogue
    from metalimmu.images.ramdisk import Ramdisk
    from metalimmu.store.protocol import Store

RESTORING = "restoring"  # a file in the state folder between the first and the last rename of a restore


class OpenSite:
    """Opens things when they are first used; `close` closes what was opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._identity: tuple[int, int] | None = None

    @cached_property
    def docs(self) -> SiteDocs:
        """Raises SiteError with every problem of every document."""
        return load(self.folder)

    def reload(self) -> None:
        """Read the documents again, for whoever runs for long. Raises SiteError; then the old ones stay."""
        self.__dict__["docs"] = load(self.folder)

    @property
    def state(self) -> Path:
        return self.folder / self.docs.site.state

    @property
    def images_folder(self) -> Path:
        given = self.docs.site.images
        return (self.folder / Path(given).expanduser()) if given else private_folder(self.state) / "images"

    @property
    def ramdisk_folder(self) -> Path:
        given = self.docs.site.ramdisks
        return (self.folder / Path(given).expanduser()) if given else private_folder(self.state) / "ramdisk"

    @cached_property
    def store(self) -> Store:
        from metalimmu.store.sqlite import SqliteStore

        if (private_folder(self.state) / RESTORING).exists():
            raise StoreError(
                f"{self.state} is half restored: a `metalimmu restore` broke off",
                hint="run it again; what was there before lies beside that folder",
            )
        opened = SqliteStore(self.state / "store.sqlite")
        self._identity = _identity(self.state / "store.sqlite")
        return opened

    def check_store(self) -> None:
        """Raises StoreError when the open store is no longer the site's: a restore has put another in its place."""
        if "store" in self.__dict__ and _identity(self.state / "store.sqlite") != self._identity:
            raise StoreError(
                f"{self.state} was restored from a backup while this process had it open",
                hint="start this command again: it would go on with what is no longer true",
            )

    @cached_property
    def catalogue(self) -> Catalogue:
        from metalimmu.images.catalogue import Catalogue

        return Catalogue(self.images_folder)

    def spec(self, host: str) -> HostSpec:
        """Raises NotFound."""
        return resolve(self.docs, host, root=self.folder)

    def ramdisk(self, flavour: str) -> Ramdisk:
        from metalimmu.images import ramdisk

        return ramdisk.load(self.ramdisk_folder / flavour)

    @cached_property
    def budget(self) -> Budget:
        """What all processes of this site may ask of its BMCs."""
        from metalimmu.bmc.budget import Budget, Limits

        bmc = self.docs.site.bmc
        rate = units.per_second(bmc.rate) if bmc.rate else None
        limits = Limits(rate=rate, per_rack=bmc.per_rack, per_site=bmc.per_site)
        return Budget(limits, private_folder(self.state) / "bmc-budget")

    @cached_property
    def ledger(self) -> LoginLedger:
        """Refused logins of all processes of this site, and sessions that killed ones have left."""
        from metalimmu.bmc.ledger import Ledger
        from metalimmu.bmc.sessions import Sessions

        return Ledger(self.store, Sessions(private_folder(self.state) / "bmc-sessions"))

    def connect(
        self, spec: HostSpec, *, before_write: Callable[[], None] | None = None, mode: Mode | None = None
    ) -> Bmc:
        """A connected BMC. `mode` read-only makes writes impossible, whatever the site says."""
        from metalimmu.bmc.connect import connect

        return connect(
            spec,
            folder=self.folder,
            ledger=self.ledger,
            before_write=before_write,
            mode=mode or spec.mode,
            budget=self.budget,
        )

    def close(self) -> None:
        if "ledger" in self.__dict__:
            self.ledger.sessions.close()
        if "store" in self.__dict__:
            self.store.close()
        if "budget" in self.__dict__:
            self.budget.close()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def private_folder(path: Path) -> Path:
    """State holds keys and evidence: ours alone. Raises ToolError."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.chmod(0o700)  # another part may have made it before, with the umask of the day
    except OSError as exc:
        raise ToolError(
            f"cannot make the state folder {path}: {exc.strerror}",
            hint="set `state:` in site.yaml to a folder that you may write",
        ) from exc
    return path
