"""Messages of a deployment, in the order they are sent.

All but chunks travel over TLS to `urls.machines`; the agent trusts exactly one certificate, pinned by its SHA-256
(the media brings the pin). The token travels as `Authorization: Bearer TOKEN`.

====================================  =======================================  =====================
request                               body                                     answer
====================================  =======================================  =====================
POST /v1/check-in                     CheckIn                                  Assignment | Refusal
GET  /v1/manifest/{sha256}            -                                        manifest, its digest checked by the agent
GET  {chunk_base}/{sha256}            -                                        one zstd frame
GET  /v1/config                       -                                        RunTimeConfig
POST /v1/salvage/{name}               -                                        Orders | Refusal: may it come?
PUT  /v1/salvage/{name}               a tar, zstd, as long as it comes         Orders | Refusal
POST /v1/progress                     Progress                                 Orders
POST /v1/report                       Report                                   Orders
POST /v1/failure                      Failure                                  Orders
POST /v1/system                       SystemReport (its own token)             SystemAnswer
POST /v1/system/config                ConfigAsk (the same token)               ConfigPackage | Refusal
====================================  =======================================  =====================

Answers other than 200 carry a Refusal.
"""

from __future__ import annotations

from dataclasses import dataclass, field

PROTOCOL = 1
PROOF_FILE = "metalimmu.json"  # on the seed, for the proof unit: url, token, pin, certificate, config_digest
PHASES = ("identify", "burn-in", "salvage", "erase", "zero", "write", "read-back", "config", "erase-after", "wait")
"""The agent's, in order. It leaves out what it was not asked to do, and may have passed several between two words of it."""


@dataclass(frozen=True)
class Boot:
    """What the boot media's slot brings to the ramdisk, as /metalimmu/boot.json."""

    url: str  # base URL of the machines' listener, https://
    token: str
    pin: str  # SHA-256 (hex) of the controller's certificate in DER
    deployment: str
    network: dict[str, str] = field(
        default_factory=dict
    )  # kernel-like: mac, address (CIDR), gateway, dns, vlan, mtu; empty: DHCP
    protocol: int = PROTOCOL


@dataclass(frozen=True)
class Nic:
    name: str
    mac: str  # lower case, colons
    link: bool = False
    driver: str = ""
    speed: int = 0  # Mbit/s, 0 unknown


@dataclass(frozen=True)
class Identity:
    """From /sys/class/dmi/id (SMBIOS, DSP0134)."""

    serial: str
    uuid: str
    vendor: str = ""
    product: str = ""
    nics: tuple[Nic, ...] = ()


@dataclass(frozen=True)
class Disk:
    path: str  # /dev/sda
    size: int  # bytes
    logical_sector: int = 512
    physical_sector: int = 512
    model: str = ""
    serial: str = ""
    wwn: str = ""
    transport: str = ""  # sata, sas, nvme, usb, virtio, ...
    rotational: bool = False
    removable: bool = False
    read_only: bool = False
    virtual: bool = False  # a BMC's virtual media or similar
    by_path: str = ""
    signatures: tuple[str, ...] = ()  # what is on it: "gpt", "ext4 LABEL=root", "linux_raid_member", ...
    unusable: str = ""  # why it is never a candidate; empty: it may be


@dataclass(frozen=True)
class CheckIn:
    identity: Identity
    architecture: str
    firmware: str  # uefi | bios
    boot_id: str  # /proc/sys/kernel/random/boot_id
    agent_version: str
    secure_boot: bool | None = None
    memory: int = 0  # bytes
    clock: float = 0.0  # seconds since 1970 as the machine believes
    disks: tuple[Disk, ...] = ()
    fence: int = 0  # the newest fence this agent has seen
    protocol: int = PROTOCOL
    can: tuple[str, ...] = ()  # of DISK_WORK: an older agent would not obey what it does not know


@dataclass(frozen=True)
class RootDisk:
    """Hints; all that are given must hold, and exactly one disk must be left. Sizes in bytes."""

    serial: str | None = None
    wwn: str | None = None
    model: str | None = None
    min_size: int | None = None
    max_size: int | None = None
    rotational: bool | None = None
    by_path: str | None = None


DISK_WORK = ("keep", "mirror", "erase", "salvage", "burn-in")
"""What an agent must be able to do for an assignment that asks for it, see `asked`."""


@dataclass(frozen=True)
class Erase:
    """All of a disk, not only what the image covers."""

    disk: RootDisk | None = None  # None: the root disk, and its mirror; hints else, which must fit exactly one
    how: str = "auto"  # auto | nvme-format | nvme-sanitize | ata | zero | overwrite
    when: str = "before"  # before the image is written, or after it was read back (never the root disk)


@dataclass(frozen=True)
class Salvage:
    """Files of the old system, copied to the controller before anything is written."""

    paths: tuple[str, ...]  # absolute; * and ? within a name
    limit: int  # bytes of file content
    required: bool = False  # when it cannot be done, nothing is written


@dataclass(frozen=True)
class BurnIn:
    """Seconds per test, 0: not done. A threshold of 0 is none; rates are bytes per second."""

    cpu: float = 0.0
    memory: float = 0.0
    disk: float = 0.0
    network: float = 0.0
    min_cpu: float = 0.0  # SHA-256 of one CPU
    min_memory: float = 0.0  # copying
    min_disk: float = 0.0  # sequential reads of the root disk
    min_network: float = 0.0  # chunks from the controller
    min_bytes: int = 0  # of memory
    min_cpus: int = 0
    max_corrected: int = 0  # memory errors that ECC corrected meanwhile
    max_nic_errors: int = 0


@dataclass(frozen=True)
class Assignment:
    """What the machine must become. `stage` says where to go on after the agent's or controller's own restart."""

    deployment: str
    fence: int
    stage: str  # write | wait (all is written, wait for go) | done (never write)
    image: str  # name@version
    digest: str  # sha256:...
    chunk_base: str  # URL without trailing slash
    serial: str  # what SMBIOS must say; empty: not known
    uuid: str
    nics: tuple[str, ...]  # MACs that must be there
    root_disk: RootDisk
    previous_digest: str | None = None  # the image recorded on that disk, for the delta
    wipe_signatures: bool = False
    clock: float = 0.0  # controller's time, seconds since 1970
    host: str = ""
    efi_label: str = ""  # description of our boot entry
    own_efi_entries: tuple[str, ...] = ()  # descriptions of entries recorded as ours
    parallel: int = 4  # connections for chunks
    keep: tuple[RootDisk, ...] = ()  # disks that fit any of these are never written
    mirrored: bool = False  # the root is a RAID 1 of two disks
    mirror: RootDisk | None = None  # hints for the second one; None: those of root_disk fit two
    erase: tuple[Erase, ...] = ()
    salvage: Salvage | None = None
    burn_in: BurnIn | None = None
    begun: str = ""  # how far an earlier boot of this deployment came: erase | write; what was on the disks is gone


def asked(a: Assignment) -> tuple[str, ...]:
    """The words of DISK_WORK that this assignment needs."""
    needs = (bool(a.keep), a.mirrored, bool(a.erase), a.salvage is not None, a.burn_in is not None)
    return tuple(word for word, needed in zip(DISK_WORK, needs, strict=True) if needed)


@dataclass(frozen=True)
class ConfigFile:
    path: str  # relative, on the seed
    content: str


@dataclass(frozen=True)
class RunTimeConfig:
    """Files of the seed: a FAT file system labelled `cidata` (NoCloud)."""

    files: tuple[ConfigFile, ...]
    digest: str  # SHA-256 (hex) over path NUL content NUL, sorted by path; without PROOF_FILE, which carries it


@dataclass(frozen=True)
class Progress:
    phase: str  # one of PHASES
    done: int = 0  # bytes of the phase
    total: int = 0
    fetched_bytes: int = 0  # compressed, over the network
    log: tuple[str, ...] = ()  # new lines since the last Progress
    fence: int = 0
    boot_id: str = ""


@dataclass(frozen=True)
class Orders:
    """The controller's word with each answer."""

    fence: int
    go: bool = False  # reboot into the new system now
    stop: str = ""  # a reason: write nothing more, wait for the BMC
    stage: str = "write"


@dataclass(frozen=True)
class Report:
    """All is written, read back and configured; the agent waits for go."""

    disk: Disk
    digest: str  # of the manifest that the read-back was compared with
    read_back: str  # manifest.read_back_digest of the chunks as read back from the disk, past the page cache
    boot_id: str
    chunks: int = 0
    fetched_chunks: int = 0
    fetched_bytes: int = 0
    kept_chunks: int = 0  # the disk held them already
    zero_bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)  # by phase
    config_digest: str = ""
    efi_entries: tuple[str, ...] = ()  # BootOrder as read back: "0003 metalimmu web@2 \\EFI\\..."
    resumed: int = 0  # times the write went on after a break
    fence: int = 0
    notes: tuple[str, ...] = ()  # what the operator should know: signatures wiped, NVRAM full, no O_DIRECT
    changed: tuple[str, ...] = ()  # "offset+length what": bytes of the disk that are ours and not the image's
    mirror: Disk | None = None  # the second half of the root: read back as the first
    kept: tuple[str, ...] = ()  # paths of disks that were not to be written
    erased: tuple[str, ...] = ()  # "/dev/sdb: how, what was checked"
    salvaged: tuple[str, ...] = ()  # a line per file system
    burn_in: dict[str, float] = field(default_factory=dict)  # what was measured


@dataclass(frozen=True)
class Failure:
    code: str  # class name in metalimmu.errors
    message: str
    hint: str = ""
    evidence: dict[str, str] = field(default_factory=dict)
    disks: tuple[Disk, ...] = ()
    boot_id: str = ""
    phase: str = ""  # as of Progress: where it was


@dataclass(frozen=True)
class Refusal:
    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True)
class SystemReport:
    """The new system's own word, sent until acknowledged by the proof unit of images that we build."""

    image_id: str  # os-release IMAGE_ID
    image_version: str  # os-release IMAGE_VERSION
    build_id: str  # os-release BUILD_ID
    serial: str
    boot_id: str
    uuid: str = ""
    config_digest: str = ""  # over the files of the seed as they are now
    note: str = ""  # by the controller, where no proof unit spoke
    key: str = (
        ""  # base64 of the Ed25519 public key (RFC 8032) that it has made for itself; empty: it fetches no config
    )
    config_failed: int = 0  # serial of the config that it could not apply
    config_why: str = ""
    arrays: str = ""  # its md arrays that run: "md127 raid1 2/2, ..."


@dataclass(frozen=True)
class ConfigOffer:
    serial: int
    digest: str


@dataclass(frozen=True)
class SystemAnswer:
    acknowledged: bool
    again: int  # seconds until the system says again that it is there; 0: never
    config: ConfigOffer | None = None  # there is a newer one


@dataclass(frozen=True)
class ConfigAsk:
    serial: int
    signature: str  # base64; of `config_claim(serial)` by the machine's own key


def config_claim(serial: int) -> bytes:
    return f"metalimmu config {serial}\n".encode()


@dataclass(frozen=True)
class ConfigPackage:
    """New files for the seed, all of them, PROOF_FILE too."""

    serial: int
    digest: str  # as RunTimeConfig.digest
    files: tuple[ConfigFile, ...]
    apply: tuple[str, ...]  # command; empty: cloud-init
    limit: float  # seconds
    secrets: tuple[str, ...] = ()  # texts in the files that the machine must not repeat
