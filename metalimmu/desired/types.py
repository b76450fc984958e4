"""The documents of a site, as structs. A field's docstring comment is its help in editors (JSON Schema).

Sizes in documents are text with a unit (`100GB`, `1TiB`); durations too (`30s`, `10m`, `1h`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from metalimmu.desired.alerts import Alert, Alertmanager, Email, Slack, Webhook  # noqa: F401  # schema.py looks here
from metalimmu.desired.backup import Backup
from metalimmu.desired.base import Document as Document  # noqa: PLC0414  # part of this module's face
from metalimmu.desired.base import Duration as Duration  # noqa: PLC0414
from metalimmu.desired.base import Name as Name  # noqa: PLC0414
from metalimmu.desired.base import Tls as Tls  # noqa: PLC0414
from metalimmu.desired.disks import BurnInRule as BurnInRule  # noqa: PLC0414
from metalimmu.desired.disks import EraseRule as EraseRule  # noqa: PLC0414
from metalimmu.desired.disks import RootDiskHints as RootDiskHints  # noqa: PLC0414
from metalimmu.desired.disks import SalvageRule as SalvageRule  # noqa: PLC0414
from metalimmu.desired.disks import Size as Size  # noqa: PLC0414
from metalimmu.desired.disks import Throughput as Throughput  # noqa: PLC0414
from metalimmu.desired.hooks import Health as Health  # noqa: PLC0414
from metalimmu.desired.hooks import Hook as Hook  # noqa: PLC0414
from metalimmu.desired.hooks import Hooks as Hooks  # noqa: PLC0414
from metalimmu.desired.netboot import Netboot as Netboot  # noqa: PLC0414
from metalimmu.desired.schedules import MaintenanceWindow, Schedule, Window  # noqa: F401
from metalimmu.desired.switch import Switch, SwitchSpec
from metalimmu.desired.waiver import Waiver

if TYPE_CHECKING:  # profile.py builds on the types here
    from metalimmu.desired.profile import Profile

ImageName = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9][a-z0-9._-]*@[A-Za-z0-9][A-Za-z0-9._+~-]*$",
        description="an image as name@version",
        examples=["web@2026.11.3"],
    ),
]
Mac = Annotated[
    str,
    Meta(
        pattern=r"^([0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}$",
        description="a MAC address, quoted",
        examples=["b8:ca:3a:00:00:01"],
    ),
]
Cidr = Annotated[
    str, Meta(pattern=r"^[0-9a-fA-F.:]+/[0-9]{1,3}$", description="address/prefix length", examples=["10.1.12.7/24"])
]
Digest = Annotated[
    str,
    Meta(
        pattern=r"^sha256:[0-9a-f]{64}$",
        description="a digest as sha256: and 64 hex digits",
        examples=["sha256:" + "0" * 64],
    ),
]
Rate = Annotated[
    str,
    Meta(
        pattern=r"^(?![0.]+/)[0-9]{1,4}(\.[0-9]{1,3})?/[sm]$",
        description="requests per second or minute, above 0",
        examples=["2/s", "30/m"],
    ),
]
OnMachine = (
    Annotated[
        str,
        Meta(
            description="a program of the machine, by its whole path, and its arguments; no shell, no template",
            examples=["/usr/local/sbin/reconfigure --all"],
        ),
    ]
    | list[str]
)
AtOnce = Annotated[int, Meta(ge=1, le=10000, description="a whole number from 1 to 10000")]
BootMethod = Literal["virtual-media", "uefi-http", "pxe"]
Approvals = Annotated[int, Meta(ge=0, le=2, description="a number of people from 0 to 2")]
Mode = Literal["read-only", "read-write"]


class Route(Document, frozen=True, kw_only=True):
    to: Annotated[
        str,
        Meta(
            pattern=r"^(default|[0-9a-fA-F.:]+/[0-9]{1,3})$",
            description="a network as address/prefix length, or default",
            examples=["10.0.0.0/8"],
        ),
    ]
    via: str


class Network(Document, frozen=True, kw_only=True):
    """Static when `address` is given, DHCP otherwise. NICs come from the host's `nics` unless named here."""

    address: Cidr | None = None
    gateway: str | None = None
    dns: list[str] = []
    search: list[str] = []
    vlan: Annotated[int, Meta(ge=1, le=4094)] | None = None
    bond: Literal["802.3ad", "active-backup"] | None = None
    nics: list[Mac] = []
    mtu: Annotated[int, Meta(ge=576, le=9216)] | None = None
    routes: list[Route] = []


class Location(Document, frozen=True, kw_only=True):
    site: str | None = None
    room: str | None = None
    rack: str | None = None
    u: int | None = None
    leaves: list[str] = []


class Host(Document, frozen=True, kw_only=True):
    name: Name
    bmc: Annotated[
        str,
        Meta(
            pattern=r"^(redfish\+https|redfish\+http|redfish-raw\+https|ipmi|fake|ssh)://.+",
            description="a BMC address: redfish+https://ADDRESS[:PORT], redfish+http:// or ipmi://",
            examples=["redfish+https://10.12.0.7"],
        ),
    ]
    kind: Literal["server", "switch"] = "server"
    switch: Switch | None = None
    system: str | None = None  # Redfish system id, where a BMC has several
    serial: str | None = None
    credentials: str | None = None  # env:PREFIX, file:PATH, keyring:SERVICE, vault:PATH
    tls: Tls | None = None
    bmc_proxy: str | None = None
    nics: list[Mac] = []
    network: Network | None = None
    root_disk: RootDiskHints | None = None
    mirror: RootDiskHints | None = None  # the second disk of the role's mirror
    keep: list[RootDiskHints] = []  # disks that are never written, beside those of the role
    erase: list[EraseRule] = []  # instead of the role's
    role: str | None = None
    pool: str | None = None
    location: Location | None = None
    labels: dict[str, str] = {}
    vars: dict[str, object] = {}  # for the templates of run-time config
    protected: bool = False
    vendor: str | None = None  # for `match` rules; what the BMC says wins in findings
    model: str | None = None


class ProofRule(Document, frozen=True, kw_only=True):
    """How an imported image proves itself. Images that we build report by themselves (`report`)."""

    by: Literal["report", "phone_home", "ssh", "none"] = "report"
    ssh_user: str | None = None
    ssh_key: str | None = None  # credentials reference
    expect: dict[str, str] = {}  # os-release fields, for ssh


class Role(Document, frozen=True, kw_only=True):
    image: ImageName
    profile: str | None = None
    boot: Literal["auto", "virtual-media", "uefi-http", "pxe", "onie", "two-slot"] | list[BootMethod] = "auto"
    firmware: Literal["uefi", "bios"] = "uefi"  # how the machine boots
    root_disk: RootDiskHints | None = None
    mirror: bool | RootDiskHints = False  # RAID 1 of two disks: those that root_disk fits, or this one beside it
    keep: list[RootDiskHints] = []  # disks that fit any of these are never written, whatever else is asked
    erase: list[EraseRule] = []
    salvage: SalvageRule | None = None
    network: Network | None = None
    wipe_signatures: bool = False
    proof: ProofRule = ProofRule()
    config: dict[
        str, str
    ] = {}  # seed file name -> template file in templates/; user-data, meta-data, network-config have defaults
    apply: OnMachine | None = None  # run on the machine by `config push`, among the new files; without it cloud-init
    vars: dict[str, object] = {}
    labels: dict[str, str] = {}
    ramdisk: str = "generic"  # flavour
    arguments: str = ""  # more kernel arguments for images of kind installer and live, as console=ttyS1; a template
    hooks: Hooks = Hooks()  # within those of the pool
    health: Health | list[Health] = []  # beside that of the pool
    soak: Duration = "60s"  # of a switch: how long pair, ports and neighbours must stay well before it counts as done
    installs: Annotated[int, Meta(ge=1, le=10)] = 2  # of a switch: how often its installer is given out in one run


class Pool(Document, frozen=True, kw_only=True):
    mode: Mode | None = None
    labels: dict[str, str] = {}
    vars: dict[str, object] = {}
    min_active: int | None = None  # so many must stay active, whatever is done
    max_unavailable: str | int | None = None  # so many, or so many percent of the pool, may be not active
    batch: str | int | None = None  # hosts of a wave after the first host, or percent of those of the pool
    soak: Duration = "0s"  # how long each wave must stay well before the next one begins
    windows: list[MaintenanceWindow] = []  # when reimages may begin; empty: always
    failure_domain: list[str] | None = None  # never two of this pool at once that share one: rack, leaves, label keys
    approvals: Approvals = 0  # people beside its author who must have signed a plan for its hosts (`approve`)
    hooks: Hooks = Hooks()  # done before and after each reimage of a host
    health: Health | list[Health] = []  # what must be good before a reimaged host counts as active; all of them
    burn_in: BurnInRule | None = None  # tests of a machine before it becomes one of this pool


class Match(Document, frozen=True, kw_only=True):
    vendor: str | None = None
    model: str | None = None
    name: str | None = None  # glob
    pool: str | None = None
    role: str | None = None
    labels: dict[str, str] = {}


class CredentialRule(Document, frozen=True, kw_only=True):
    match: Match = Match()
    ref: str


class Urls(Document, frozen=True, kw_only=True):
    """`bmc` is what BMCs fetch media from, `machines` what booting machines talk to (TLS), `chunks` where they
    may fetch chunks in the clear (each is checked against the manifest); without it they come over TLS. `boot` is where
    machines that boot from the network fetch scripts and kernels, in the clear; without it `chunks`, else `bmc`, if plain.
    """

    bmc: Annotated[
        str, Meta(pattern=r"^https?://.+", description="an http:// or https:// URL", examples=["http://10.0.0.5:8080"])
    ]
    machines: Annotated[
        str, Meta(pattern=r"^https://.+", description="an https:// URL", examples=["https://10.1.0.5:8443"])
    ]
    chunks: Annotated[str, Meta(pattern=r"^https?://.+", description="an http:// or https:// URL")] | None = None
    boot: (
        Annotated[str, Meta(pattern=r"^http://.+", description="an http:// URL", examples=["http://10.1.0.5:8080"])]
        | None
    ) = None


class Listen(Document, frozen=True, kw_only=True):
    """Where the boot service listens (by default on all addresses, at the ports of `urls`), and `serve`."""

    bmc: str | None = None  # ADDRESS:PORT
    machines: str | None = None
    boot: str | None = None
    syslog: str | None = None  # UDP, what ONIE's installers say while they work; without it nobody listens
    serve: str = "127.0.0.1:9464"  # ADDRESS:PORT of /metrics and /healthz of `metalimmu serve`


class BmcSettings(Document, frozen=True, kw_only=True):
    """`rate`, `per_rack` and `per_site` are one budget for all processes of the site; null is no limit."""

    proxy: str | None = None
    connect_timeout: Duration = "10s"
    read_timeout: Duration = "60s"
    rate: Rate | None = None  # requests to one BMC; without it as fast as it answers, one after the other
    per_rack: AtOnce | None = None  # BMCs of one rack that are asked at once; a rack is a host's location
    per_site: AtOnce | None = 1000
    max_refused: AtOnce = 3  # refused logins of one scan, then nobody is logged in any more: no account is locked


class BootSettings(Document, frozen=True, kw_only=True):
    """What images may take of the machines' network, so that a wave does not starve it. Without limits none holds."""

    per_rack: Throughput | None = None  # images, for all machines of one rack together; a rack is a host's location
    agents: AtOnce | None = None  # machines that are written at once; the others wait their turn in the ramdisk


class Limits(Document, frozen=True, kw_only=True):
    """Time limits of steps. The defaults fit real machines."""

    power: Duration = "5m"
    media: Duration = "5m"
    check_in: Duration = "30m"
    stall: Duration = "10m"  # no progress of a write
    phone_home: Duration = "30m"
    bmc: Duration = "15m"  # how long a BMC may be away
    report_again: Duration = "5m"  # how often an installed system says that it is still there
    apply: Duration = "10m"  # of a config push: the role's `apply`, or cloud-init
    install: Duration = "2h"  # an installer of somebody else's, from its first question to its last word


class Guards(Document, frozen=True, kw_only=True):
    max_hosts: int = 10  # changing at once, over all runs; a request for more needs --confirm
    max_failures: int = 1  # a rollout stops at so many
    batch: str | int | None = None  # for pools that say none; without it max_hosts
    failure_domain: list[
        str
    ] = []  # never two of the site at once that share one; a pool's own replaces it for its hosts


class Site(Document, frozen=True, kw_only=True):
    name: Name
    urls: Urls
    mode: Mode = "read-only"
    listen: Listen = Listen()
    credentials: list[CredentialRule] = []
    tls: Tls = Tls()
    bmc: BmcSettings = BmcSettings()
    boot: BootSettings = BootSettings()
    netboot: Netboot = Netboot()
    limits: Limits = Limits()
    guards: Guards = Guards()
    state: str = ".metalimmu"  # folder, relative to the site
    images: str | None = None  # folder of the image store; default STATE/images
    ramdisks: str | None = None  # folder of ramdisks; default STATE/ramdisk
    mirror: str | None = None  # Debian mirror
    vars: dict[str, object] = {}
    controller_leaves: list[Name] = []  # switches that the controller itself hangs on
    schedules: dict[Name, Schedule] = {}
    alerts: list[Alert] = []
    backup: Backup | None = None  # what `serve` backs up, and how `metalimmu backup` encrypts
    textfile: str | None = None  # metrics are written here after each scan, for node_exporter's textfile collector


class Hold(Document, frozen=True, kw_only=True):
    """A host kept at another image than its role says."""

    host: str
    image: ImageName
    reason: str
    since: str  # date or time, quoted
    by: str = ""


class HostSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that is wanted of one host, overrides combined: the input of plan and workflow. Sizes in bytes, times in seconds."""

    name: str
    bmc: str
    system: str | None
    serial: str | None
    credentials: str | None  # reference
    tls: Tls  # `ca` is an absolute path here
    proxy: str | None
    connect_timeout: float
    read_timeout: float
    mode: Mode
    nics: tuple[str, ...]  # lower case, colons
    network: Network
    role: str | None
    pool: str | None
    image: str | None  # name@version: the hold's if there is one
    digest: str | None  # from images.lock, if pinned
    held: Hold | None
    boot: str  # the role's word; auto where it names several methods
    firmware: str
    ramdisk: str
    root_disk: dict[str, str | int | bool | None]  # fields of wire.RootDisk
    wipe_signatures: bool
    proof: ProofRule
    templates: dict[str, str]  # seed file name -> template text
    template_files: dict[str, str] = {}  # seed file name -> file it came from, for error messages
    vars: dict[str, object]
    labels: dict[str, str]  # with pool, role, rack, model, kind, name
    protected: bool
    limits: dict[str, float]
    profile: str | None = None  # the role's; without one, `profiles.select` chooses when the machine is known
    vendor: str | None = None  # the host document's, until the machine says what it is
    before: tuple[Hook, ...] = ()  # the pool's, then the role's
    after: tuple[Hook, ...] = ()  # the role's, then the pool's
    health: tuple[Health, ...] = ()  # the role's and the pool's
    apply: tuple[str, ...] = ()  # the role's command for new run-time config; empty: cloud-init
    methods: tuple[str, ...] = ()  # how a server may be booted into the ramdisk, in order; empty: any, in the usual one
    arguments: str = ""  # the role's kernel arguments for installers and live systems
    keep: tuple[dict[str, str | int | bool | None], ...] = ()  # fields of wire.RootDisk; the role's and the host's
    mirrored: bool = False
    mirror: dict[str, str | int | bool | None] | None = None  # fields of wire.RootDisk; None: root_disk fits two
    erase: tuple[EraseRule, ...] = ()
    salvage: SalvageRule | None = None
    burn_in: BurnInRule | None = None  # the pool's
    kind: str = "server"
    switch: SwitchSpec | None = None  # of kind switch


class SiteDocs(msgspec.Struct, frozen=True, kw_only=True):
    """All documents of a site, each valid and all of them fitting together: what `load` returns."""

    site: Site
    hosts: dict[str, Host]
    roles: dict[str, Role]
    pools: dict[str, Pool]
    profiles: dict[str, Profile]  # the site's own, and those that ship (without their `match`) under other names
    lock: dict[str, str]  # name@version -> sha256:...
    holds: dict[str, Hold]  # by host
    waivers: tuple[Waiver, ...] = ()
    templates: dict[str, str]  # file name under templates/ -> text
    files: dict[tuple[str, str], str]  # ("host", name), also role, pool, profile -> file, relative to the site
