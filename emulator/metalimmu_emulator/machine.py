"""What a lab server is made of, and the QEMU command line that makes it so. Pure: no I/O."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from metalimmu_emulator.switch import machine as switches
from metalimmu_emulator.switch.machine import SwitchSpec

FIRMWARES = ("uefi", "bios", "secure")
DISK_BUSES = ("virtio", "ahci", "nvme", "scsi")
NICS = ("virtio", "e1000")
CD_BUSES = ("virtio", "ahci")
PERSONAS = ("default", "continuous-only")

OVMF = "/usr/share/OVMF"
CODE = {"uefi": f"{OVMF}/OVMF_CODE_4M.fd", "secure": f"{OVMF}/OVMF_CODE_4M.ms.fd"}
VARS = {"uefi": f"{OVMF}/OVMF_VARS_4M.fd", "secure": f"{OVMF}/OVMF_VARS_4M.ms.fd"}

# Redfish's names of boot sources to our devices. The CD is in no default order: a machine that ignores its
# override must not happen to boot the media all the same.
ORDERS: dict[str, tuple[str, ...]] = {
    "None": ("disk0",),
    "Hdd": ("disk0",),
    "Cd": ("cd0", "disk0"),
    "Pxe": ("nic0", "disk0"),
    "UefiHttp": ("nic0", "disk0"),
}
NETBOOTS = {"Pxe": "pxe", "UefiHttp": "http"}  # what firmware must be started for: Start.netboot
BOOTABLE = ("disk0", "cd0", "nic0")
SERIAL = "serial"


@dataclass(frozen=True)
class DiskSpec:
    size: int  # bytes
    serial: str  # at most 20 characters (virtio-blk's limit)
    bus: str = "virtio"
    file: str = "disk0.raw"  # in the server's folder, sparse


@dataclass(frozen=True)
class ServerSpec:
    """`ports` and paths are not here: a server is the same server in whichever lab folder it stands."""

    name: str
    uuid: str
    serial: str
    mac: str  # lower case, colons
    disks: tuple[DiskSpec, ...]
    firmware: str = "uefi"  # uefi | bios | secure
    memory: int = 1024  # MiB
    kvm: bool = False
    nic: str = "virtio"
    cd: str = "virtio"  # the bus of the CD drive: virtio (SCSI), as Debian's cloud kernel has no AHCI; or ahci
    persona: str = "default"
    tap: str = ""  # an interface of the host, for a real network; empty: QEMU's own
    bootfile: str = ""  # what QEMU's own DHCP names: an address for iPXE
    manufacturer: str = "metalimmu"
    product: str = "lab"
    switch: SwitchSpec | None = None  # not a server then


@dataclass(frozen=True)
class Start:
    """What one power-on needs beyond the server's own make-up."""

    firmware: str  # may differ from the server's: BootSourceOverrideMode was changed
    order: tuple[str, ...]
    qmp_fd: int
    netboot: str = ""  # pxe | http: the protocol that firmware boots the network by; empty: it does not
    clock: str = ""  # ISO time of the machine's clock; empty: the host's, UTC
    serial: str = ""  # SMBIOS serial and UUID, when they must differ from what Redfish says (a fault)
    uuid: str = ""


def command(server: ServerSpec, start: Start) -> list[str]:
    """Run in the server's folder: all files are relative. The machine is stopped until `cont`.

    `setpriv --pdeathsig` (util-linux) lets the kernel kill QEMU when the supervisor dies, however it dies.
    """
    server = replace(server, serial=start.serial or server.serial, uuid=start.uuid or server.uuid)
    return [
        *("setpriv", "--pdeathsig", "KILL", "--", "qemu-system-x86_64"),
        *("-name", f"{server.name},process=metalimmu-lab", "-nodefaults", "-no-user-config", "-S"),
        *_board(server, start),
        *("-uuid", server.uuid, "-smbios", _smbios(server)),
        *(("-smbios", switches.smbios(server.switch)) if server.switch else ()),
        *("-rtc", f"base={start.clock or 'utc'}", "-display", "none", "-boot", "menu=off,strict=on"),
        *("-chardev", f"socket,id=qmp,fd={start.qmp_fd}", "-mon", "chardev=qmp,mode=control"),
        *("-chardev", "socket,id=admin,path=qmp.sock,server=on,wait=off", "-mon", "chardev=admin,mode=control"),
        # console.log has all that is said; who wants to listen and type connects (one at a time).
        *("-chardev", f"socket,id={SERIAL},path={SERIAL}.sock,server=on,wait=off,logfile=console.log,logappend=on"),
        *("-serial", f"chardev:{SERIAL}"),
        *("-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng"),
        *_nic(server, start),
        *(switches.links(server.switch) if server.switch else ()),  # after nic0, which must be eth0
        *("-device", "virtio-scsi-pci,id=scsi"),
        *_device({"virtio": "scsi-cd,bus=scsi.0", "ahci": "ide-cd,bus=ide.1"}[server.cd], "cd0", start),
        *(part for i, disk in enumerate(server.disks) for part in _disk(i, disk, start)),
    ]


def _board(server: ServerSpec, start: Start) -> list[str]:
    machine, extra = "q35", []
    if start.firmware == "bios":
        machine += ",graphics=off"  # SeaBIOS then speaks on the serial port
    else:
        extra = [
            *("-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={CODE[start.firmware]}"),
            *("-drive", f"if=pflash,unit=1,format=raw,file=vars-{start.firmware}.fd"),
            *("-global", "ICH9-LPC.disable_s3=1"),
            *("-device", "VGA"),  # every server has one; without it GRUB complains and pauses for a second
        ]
        # Firmware tries PXE before HTTP, and each over IPv4 before IPv6, for as long as it may.
        unwanted = {"pxe": ("IPv6",), "http": ("IPv4", "IPv6")}.get(start.netboot, ())
        for family in unwanted:
            extra += ["-fw_cfg", f"name=opt/org.tianocore/{family}PXESupport,string=n"]
    if start.firmware == "secure":
        machine += ",smm=on"
        extra += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
    accel = ("-accel", "kvm", "-cpu", "host") if server.kvm else ("-accel", "tcg", "-cpu", "qemu64")
    return ["-machine", machine, *accel, "-m", str(server.memory), *extra]


def _smbios(server: ServerSpec) -> str:
    return (
        f"type=1,manufacturer={server.manufacturer},product={server.product},version=1,"
        f"serial={server.serial},uuid={server.uuid},sku=lab"
    )


def _nic(server: ServerSpec, start: Start) -> list[str]:
    """User networking: the guest reaches the host's loopback as 10.0.2.2, and nobody reaches the guest.

    `restrict=on` cannot be: it takes 10.0.2.2 away too. So a guest reaches what the lab's owner reaches. Its DHCP names one
    bootfile, an address, which only iPXE can follow: QEMU's option ROM for the NIC.
    """
    model = "e1000" if server.nic == "e1000" else "virtio-net-pci"
    # OVMF drives virtio-net itself; without the option ROM it starts half a second sooner, and boots the network by itself.
    own = start.firmware != "bios" and server.nic == "virtio" and (server.tap or start.netboot != "pxe")
    rom = ",romfile=" if server.switch or own else ""
    more = switches.user_network(server.switch) if server.switch else ""
    user = f"user,id=net0,ipv6=off{more}" + (f",bootfile={server.bootfile}" if server.bootfile else "")
    tap = f"tap,id=net0,ifname={server.tap},script=no,downscript=no"
    return [
        *("-netdev", tap if server.tap else user),
        *_device(f"{model},netdev=net0,mac={server.mac}{rom}", "nic0", start),
    ]


def _disk(number: int, disk: DiskSpec, start: Start) -> list[str]:
    name = f"disk{number}"
    node = {
        "driver": "raw",
        "node-name": f"node-{name}",
        "discard": "unmap",
        "cache": {"direct": False, "no-flush": True},  # a lab's disk need not survive the host's power cut
        "file": {
            "driver": "file",
            "filename": disk.file,
            "discard": "unmap",
            "cache": {"direct": False, "no-flush": True},
        },
    }
    port = 0 if number == 0 else number + 1  # ide.1 is the CD's
    kind = {
        "virtio": "virtio-blk-pci",
        "ahci": f"ide-hd,bus=ide.{port}",
        "nvme": "nvme",
        "scsi": "scsi-hd,bus=scsi.0",
    }[disk.bus]
    device = _device(f"{kind},drive=node-{name},serial={disk.serial}", name, start)
    return ["-blockdev", json.dumps(node), *device]


def _device(properties: str, name: str, start: Start) -> list[str]:
    index = f",bootindex={start.order.index(name)}" if name in start.order else ""
    return ["-device", f"{properties},id={name}{index}"]
