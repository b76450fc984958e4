"""What a machine of a make is built of, and the standard resources that show it (DSP0268)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from metalimmu_emulator.fleet.makes.builder import Builder, Doc, below, link, links, ok

GIB = 1 << 30


@dataclass(frozen=True)
class Hardware:
    manufacturer: str
    model: str
    bios: str  # as the system shows it
    sku: str = ""
    cpu: str = "Intel(R) Xeon(R) Gold 6442Y"
    cpu_maker: str = "Intel(R) Corporation"
    cpus: int = 2
    cores: int = 24
    architecture: tuple[str, str] = ("x86", "x86-64")
    dimms: int = 8
    dimm_gib: int = 32
    dimm_maker: str = "Micron"
    disks: int = 2
    disk_bytes: int = 960197124096
    disk_model: str = "SSD 960GB"
    disk_media: tuple[str, str] = ("SSD", "SATA")
    ports: int = 4
    port_model: str = "25GbE 2P"
    supplies: int = 2
    watts: int = 1100
    names: dict[str, str] = field(
        default_factory=dict
    )  # patterns of ids: cpu, dimm, disk, nic, psu, controller; {n} counts from 1

    def ids(self, what: str, count: int) -> list[str]:
        defaults = {
            "cpu": "CPU{n}",
            "dimm": "DIMM{n}",
            "disk": "Disk{n}",
            "nic": "NIC{n}",
            "psu": "PSU{n}",
            "boot": "Boot{x:04d}",
        }
        pattern = self.names.get(what, defaults[what])
        return [pattern.format(n=i + 1, x=i, letter="ABCDEFGH"[i % 8]) for i in range(count)]


RESETS = ["On", "ForceOff", "GracefulShutdown", "GracefulRestart", "ForceRestart", "Nmi", "PowerCycle"]
TARGETS = ["None", "Pxe", "Cd", "Usb", "Hdd", "BiosSetup", "UefiHttp"]


def reset_action(uri: str, resets: list[str], info: str = "") -> Doc:
    """Allowable values inline, or behind `info`."""
    action: Doc = {"target": f"{uri}/Actions/ComputerSystem.Reset"}
    if info:
        return {"#ComputerSystem.Reset": action | {"@Redfish.ActionInfo": info}}
    return {"#ComputerSystem.Reset": action | {"ResetType@Redfish.AllowableValues": resets}}


def action_info(b: Builder, uri: str, parameter: str, values: list[str], *, required: bool = True) -> str:
    one = {"Name": parameter, "Required": required, "DataType": "String", "AllowableValues": values}
    return b.add(uri, "ActionInfo.v1_4_2", "Reset Action Info", Parameters=[one])


def system(b: Builder, uri: str, hw: Hardware, *, kind: str, manager: str, chassis: str, **fields: Any) -> str:
    """The ComputerSystem, and below it processors, memory, storage, interfaces, boot options, secure boot."""
    order = boot_options(b, uri, hw)
    b.add(
        uri,
        kind,
        "System",
        **{
            "Manufacturer": hw.manufacturer,
            "Model": hw.model,
            "SerialNumber": "%%SERIAL%%",
            "UUID": "%%UUID%%",
            "SystemType": "Physical",
            "AssetTag": "",
            "HostName": "",
            "IndicatorLED": "Off",
            "PowerState": "On",
            "BiosVersion": hw.bios,
            "Status": ok() | {"HealthRollup": "OK"},
            "Boot": {
                "BootOptions": link(below(uri, "BootOptions")),
                "BootOrder": order,
                "BootSourceOverrideEnabled": "Disabled",
                "BootSourceOverrideEnabled@Redfish.AllowableValues": ["Disabled", "Once", "Continuous"],
                "BootSourceOverrideMode": "UEFI",
                "BootSourceOverrideMode@Redfish.AllowableValues": ["UEFI", "Legacy"],
                "BootSourceOverrideTarget": "None",
                "BootSourceOverrideTarget@Redfish.AllowableValues": TARGETS,
            },
            "ProcessorSummary": {"Count": hw.cpus, "Model": hw.cpu, "Status": ok()},
            "MemorySummary": {"TotalSystemMemoryGiB": hw.dimms * hw.dimm_gib, "Status": ok()},
            "Processors": link(processors(b, uri, hw)),
            "Memory": link(memory(b, uri, hw)),
            "Storage": link(storage(b, uri, hw, chassis)),
            "EthernetInterfaces": link(interfaces(b, uri, hw)),
            "SecureBoot": link(secure_boot(b, uri)),
            "Actions": reset_action(uri, RESETS),
            "Links": {"Chassis": [link(chassis)], "ManagedBy": [link(manager)]},
        }
        | fields,
    )
    if hw.sku:
        b.change(uri, SKU=hw.sku)
    return uri


def boot_options(b: Builder, uri: str, hw: Hardware) -> list[str]:
    where = below(uri, "BootOptions")
    names = [
        "Hard Disk: Operating System",
        "PXE IPv4 NIC 1 Port 1",
        "PXE IPv4 NIC 1 Port 2",
        "HTTP IPv4 NIC 1 Port 1",
        "Virtual CD",
    ]
    paths = [
        "HD(1,GPT)/\\EFI\\BOOT\\BOOTX64.EFI",
        "MAC(%%MACHEX1%%)/IPv4",
        "MAC(%%MACHEX2%%)/IPv4",
        "MAC(%%MACHEX1%%)/IPv4/Uri()",
        "USB(0,0)/CDROM",
    ]
    ids = hw.ids("boot", len(names))
    for ident, name, path in zip(ids, names, paths, strict=True):
        b.add(
            below(where, ident), "BootOption.v1_0_6", "Boot Option", BootOptionReference=ident, DisplayName=name,
            BootOptionEnabled=True, UefiDevicePath=f"PciRoot(0x0)/{path}",
        )  # fmt: skip
    b.collect(where, "BootOption", "Boot Options", [below(where, i) for i in ids])
    return ids


def processors(b: Builder, uri: str, hw: Hardware) -> str:
    where = below(uri, "Processors")
    ids = hw.ids("cpu", hw.cpus)
    for i, ident in enumerate(ids):
        b.add(
            below(where, ident), "Processor.v1_18_0", f"Processor {i + 1}", Socket=ident, ProcessorType="CPU",
            ProcessorArchitecture=hw.architecture[0], InstructionSet=hw.architecture[1], Manufacturer=hw.cpu_maker,
            Model=hw.cpu, TotalCores=hw.cores, TotalThreads=hw.cores * 2, MaxSpeedMHz=4000, Status=ok(),
        )  # fmt: skip
    return b.collect(where, "Processor", "Processors", [below(where, i) for i in ids])


def memory(b: Builder, uri: str, hw: Hardware) -> str:
    where = below(uri, "Memory")
    ids = hw.ids("dimm", hw.dimms)
    for i, ident in enumerate(ids):
        b.add(
            below(where, ident), "Memory.v1_17_1", ident, MemoryType="DRAM", MemoryDeviceType="DDR5",
            CapacityMiB=hw.dimm_gib * 1024, DataWidthBits=64, BusWidthBits=72, Manufacturer=hw.dimm_maker,
            PartNumber="MTC20F2085S1RC48BA1", SerialNumber=f"%%SERIAL{100 + i}%%", OperatingSpeedMhz=4800, RankCount=2,
            ErrorCorrection="MultiBitECC", Status=ok(),
        )  # fmt: skip
    return b.collect(where, "Memory", "Memory", [below(where, i) for i in ids])


def storage(b: Builder, uri: str, hw: Hardware, chassis: str) -> str:
    where = below(uri, "Storage")
    one = below(where, hw.names.get("controller", "1"))
    drives = [below(one, "Drives", i) for i in hw.ids("disk", hw.disks)]
    for i, drive in enumerate(drives):
        b.add(
            drive, "Drive.v1_17_0", f"Disk {i + 1}", Manufacturer="Samsung", Model=hw.disk_model, Revision="HXT7404Q",
            SerialNumber=f"%%SERIAL{200 + i}%%", CapacityBytes=hw.disk_bytes, MediaType=hw.disk_media[0],
            Protocol=hw.disk_media[1], BlockSizeBytes=512, Status=ok(), Links={"Chassis": link(chassis)},
        )  # fmt: skip
    controllers = b.collect(
        below(one, "Controllers"), "StorageController", "Controllers", [below(one, "Controllers", "0")]
    )
    b.add(
        below(one, "Controllers", "0"), "StorageController.v1_7_1", "Storage Controller", Manufacturer="Broadcom",
        Model="SAS3508", FirmwareVersion="51.16.0-4076", SupportedDeviceProtocols=["SATA", "SAS"], Status=ok(),
    )  # fmt: skip
    b.add(
        one,
        "Storage.v1_15_1",
        "Storage",
        Controllers=link(controllers),
        Drives=links(drives),
        **{"Drives@odata.count": len(drives)},
        Status=ok(),
    )
    return b.collect(where, "Storage", "Storage", [one])


def interfaces(b: Builder, uri: str, hw: Hardware) -> str:
    where = below(uri, "EthernetInterfaces")
    ids = hw.ids("nic", hw.ports)
    for i, ident in enumerate(ids):
        up = i < 2
        b.add(
            below(where, ident), "EthernetInterface.v1_10_0", f"NIC {i // 2 + 1} Port {i % 2 + 1}", MACAddress=f"%%MAC{i + 1}%%",
            PermanentMACAddress=f"%%MAC{i + 1}%%", SpeedMbps=25000 if up else 0, FullDuplex=True, InterfaceEnabled=True,
            LinkStatus="LinkUp" if up else "LinkDown", Status=ok() if up else {"State": "Enabled", "Health": "OK"},
        )  # fmt: skip
    return b.collect(where, "EthernetInterface", "Ethernet Interfaces", [below(where, i) for i in ids])


def secure_boot(b: Builder, uri: str) -> str:
    where = below(uri, "SecureBoot")
    return b.add(
        where, "SecureBoot.v1_1_1", "UEFI Secure Boot", SecureBootEnable=False, SecureBootCurrentBoot="Disabled",
        SecureBootMode="UserMode",
        Actions={
            "#SecureBoot.ResetKeys": {
                "target": f"{where}/Actions/SecureBoot.ResetKeys",
                "ResetKeysType@Redfish.AllowableValues": ["ResetAllKeysToDefault", "DeleteAllKeys", "DeletePK"],
            }
        },
    )  # fmt: skip


def chassis(
    b: Builder, uri: str, hw: Hardware, *, system_uri: str, manager: str, old_power: bool = False, **fields: Any
) -> str:
    """With PowerSubsystem and ThermalSubsystem, or the older Power and Thermal."""
    b.add(
        uri, "Chassis.v1_25_2", "Chassis", ChassisType="RackMount", Manufacturer=hw.manufacturer, Model=hw.model,
        SerialNumber="%%SERIAL%%", PartNumber="0XK5M1A03", AssetTag="", IndicatorLED="Off", PowerState="On", Status=ok() | {"HealthRollup": "OK"},
        Links={"ComputerSystems": [link(system_uri)], "ManagedBy": [link(manager)]},
    )  # fmt: skip
    if old_power:
        b.change(uri, Power=link(power(b, uri, hw)), Thermal=link(thermal(b, uri)))
    else:
        b.change(
            uri, PowerSubsystem=link(power_subsystem(b, uri, hw)), ThermalSubsystem=link(thermal_subsystem(b, uri))
        )
    b.change(uri, **fields)
    return uri


def power(b: Builder, uri: str, hw: Hardware) -> str:
    where = below(uri, "Power")
    supplies = [
        {
            "@odata.id": f"{where}#/PowerSupplies/{i}", "MemberId": str(i), "Name": ident, "Model": f"PS-{hw.watts}",
            "Manufacturer": "Delta", "SerialNumber": f"%%SERIAL{300 + i}%%", "FirmwareVersion": "1.04",
            "PowerCapacityWatts": hw.watts, "PowerSupplyType": "AC", "LineInputVoltage": 230, "Status": ok(),
        }
        for i, ident in enumerate(hw.ids("psu", hw.supplies))
    ]  # fmt: skip
    control = {
        "@odata.id": f"{where}#/PowerControl/0",
        "MemberId": "0",
        "Name": "System Power Control",
        "PowerConsumedWatts": 312,
        "Status": ok(),
    }
    return b.add(where, "Power.v1_7_3", "Power", PowerControl=[control], PowerSupplies=supplies)


def thermal(b: Builder, uri: str) -> str:
    where = below(uri, "Thermal")
    fans = [
        {"@odata.id": f"{where}#/Fans/{i}", "MemberId": str(i), "Name": f"Fan {i + 1}", "Reading": 7200, "ReadingUnits": "RPM", "Status": ok()}
        for i in range(6)
    ]  # fmt: skip
    inlet = {
        "@odata.id": f"{where}#/Temperatures/0",
        "MemberId": "0",
        "Name": "Inlet Temp",
        "ReadingCelsius": 22,
        "Status": ok(),
    }
    return b.add(where, "Thermal.v1_7_3", "Thermal", Fans=fans, Temperatures=[inlet])


def power_subsystem(b: Builder, uri: str, hw: Hardware) -> str:
    where = below(uri, "PowerSubsystem")
    supplies = below(where, "PowerSupplies")
    ids = hw.ids("psu", hw.supplies)
    for i, ident in enumerate(ids):
        b.add(
            below(supplies, ident), "PowerSupply.v1_6_0", ident, Manufacturer="Delta", Model=f"PS-{hw.watts}",
            SerialNumber=f"%%SERIAL{300 + i}%%", FirmwareVersion="00.1D.7D", PowerCapacityWatts=hw.watts,
            PowerSupplyType="AC", Status=ok(),
        )  # fmt: skip
    b.collect(supplies, "PowerSupply", "Power Supplies", [below(supplies, i) for i in ids])
    return b.add(
        where,
        "PowerSubsystem.v1_1_2",
        "Power Subsystem",
        PowerSupplies=link(supplies),
        CapacityWatts=hw.watts * hw.supplies,
        Status=ok(),
    )


def thermal_subsystem(b: Builder, uri: str) -> str:
    where = below(uri, "ThermalSubsystem")
    fans = below(where, "Fans")
    ids = [f"Fan{i + 1}" for i in range(6)]
    for i, ident in enumerate(ids):
        b.add(
            below(fans, ident),
            "Fan.v1_5_2",
            f"Fan {i + 1}",
            SpeedPercent={"Reading": 42, "SpeedRPM": 7200},
            Status=ok(),
        )
    b.collect(fans, "Fan", "Fans", [below(fans, i) for i in ids])
    return b.add(where, "ThermalSubsystem.v1_3_2", "Thermal Subsystem", Fans=link(fans), Status=ok())


def network_adapters(b: Builder, chassis_uri: str, hw: Hardware, *, cards: int = 1, lldp: bool = False) -> str:
    """Cards with two ports each; with `lldp` the ports say what switch they hear (DSP0268 Port.Ethernet.LLDPReceive)."""
    where = below(chassis_uri, "NetworkAdapters")
    adapters = []
    for card in range(1, cards + 1):
        uri = below(where, f"NIC{card}")
        ports = []
        for n in (1, 2):
            ethernet: Doc = {"AssociatedMACAddresses": [f"%%MAC{2 * card - 2 + n}%%"], "LLDPEnabled": lldp}
            if lldp:
                ethernet["LLDPReceive"] = {
                    "ChassisId": f"02:5a:00:00:00:{n:02x}", "ChassisIdSubtype": "MacAddr", "PortId": f"Ethernet{card}/{n}",
                    "PortIdSubtype": "IfName",
                }  # fmt: skip
            ports.append(
                b.add(
                    below(uri, "Ports", str(n)), "Port.v1_11_0", f"Port {n}", PortId=f"{card}-{n}", LinkStatus="LinkUp", CurrentSpeedGbps=25,
                    LinkNetworkTechnology="Ethernet", PortProtocol="Ethernet", Ethernet=ethernet, Status=ok(),
                )
            )  # fmt: skip
        b.collect(below(uri, "Ports"), "Port", "Ports", ports)
        adapters.append(
            b.add(
                uri, "NetworkAdapter.v1_10_0", f"NIC {card}", Manufacturer="Broadcom", Model=hw.port_model, SerialNumber=f"%%SERIAL{500 + card}%%",
                Controllers=[{"FirmwarePackageVersion": "22.36.10"}], Ports=link(below(uri, "Ports")), Status=ok(),
            )
        )  # fmt: skip
    b.collect(where, "NetworkAdapter", "Network Adapters", adapters)
    b.change(chassis_uri, NetworkAdapters=link(where))
    return where
