"""What is private in a document is replaced: consistently, in the same shape, and nothing else."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalimmu.bmc.disguise import SECRET, Disguise


def disguised(*documents: dict[str, Any]) -> list[Any]:
    disguise = Disguise()
    for document in documents:
        disguise.learn(document)
    return [disguise.replaced(d) for d in documents]


def test_one_value_has_one_replacement_wherever_it_stands() -> None:
    system = {
        "SerialNumber": "7XK2P13",
        "SKU": "7XK2P13",
        "HostName": "db-17.ams.corp.example",
        "UUID": "4c4c4544-0058-4b10-8032-b7c04f503133",
    }
    log = {
        "Message": "7xk2p13 (db-17.ams.corp.example) rebooted; 4C4C4544-0058-4B10-8032-B7C04F503133",
        "@odata.id": "/redfish/v1/X/7XK2P13",
    }
    first, second = disguised(system, log)
    assert first["SerialNumber"] == first["SKU"] != "7XK2P13"
    assert re.fullmatch(r"\d[A-Z]{2}\d[A-Z]\d\d", first["SerialNumber"])
    assert second["@odata.id"] == f"/redfish/v1/X/{first['SerialNumber']}"
    assert first["SerialNumber"].lower() in second["Message"]
    assert first["HostName"] in second["Message"]
    assert first["UUID"].upper() in second["Message"]
    assert len(first["UUID"]) == 36


def test_macs_keep_their_manufacturer_in_every_form() -> None:
    nic = {"MACAddress": "B8:CA:3A:01:02:0F"}
    bios = {"Attributes": {"Adapter_B8CA3A01020F_Mode": "On", "Other": "b8-ca-3a-01-02-0f"}}
    first, second = disguised(nic, bios)
    mac = first["MACAddress"]
    assert mac.startswith("B8:CA:3A:")
    assert mac != nic["MACAddress"]
    bare = mac.replace(":", "")
    assert set(second["Attributes"]) == {f"Adapter_{bare}_Mode", "Other"}
    assert second["Attributes"]["Other"] == mac.replace(":", "-").lower()
    nothing = {"MACAddress": "00:00:00:00:00:00", "PermanentMACAddress": "FF:FF:FF:FF:FF:FF"}
    assert disguised(nothing) == [nothing]


@pytest.mark.parametrize(
    "kept",
    [
        {"Version": "22.31.6.73", "FirmwareVersion": "7.10.30.12"},
        {"Manufacturer": "Dell Inc.", "Model": "PowerEdge R760", "PartNumber": "0XK5M1A03"},
        {"IPv4Addresses": [{"Address": "0.0.0.0", "SubnetMask": "255.255.255.0"}], "Loop": "127.0.0.1", "Any": "::"},
        {"Status": {"State": "Enabled", "Health": "OK"}, "Members@odata.count": 3},
        {"UserName": "root", "RoleId": "Administrator", "Password": None, "AssetTag": ""},
        {"Attributes": {"PasswordStatus": "Unlocked", "SerialComm": "OnNoConRedir", "AssetTagProtection": "Unlocked", "BootMode": "Uefi"}},
        {"Oem": {"DeviceClass": "aa148d2e-6e09-453e-bc6f-63baa5f5ccc4", "DeviceContext": "System Board"}},
        {"MinPasswordLength": 8, "LicenseString": "iLO Advanced", "LicenseType": "Perpetual"},
        {"@odata.id": "/redfish/v1/UpdateService/FirmwareInventory/Installed-159-2.1.5.7__BIOS.Setup.1-1"},
    ],
)  # fmt: skip
def test_what_is_nobodys_stays(kept: dict[str, Any]) -> None:
    assert disguised(kept) == [kept]


SECRETS = {
    "Password": "hunter2!",
    "SetupPassword": "open sesame",
    "AuthenticationKey": "Passphrase:abc",
    "EncryptionKey": "Hex:0011223344",
    "CommunityStrings": ["sup3rsecret"],
    "CommunityString": "n0tpublic",
    "ProxyPassword": "pr0xyp4ss",
    "LicenseKey": "ABCDE-12345-FGHIJ-67890-KLMNO",
    "Context": "subscription-of-our-collector",
    "Token": "tok-123456789",
    "WebHook": "https://bot:sl4ckt0ken@hooks.example.com/x",
    "Text": "bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "PrivateKey": "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----",
    "SSHKeys": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGtLrNcv jane@laptop",
    "Half": "-----BEGIN RSA PRIVATE KEY-----\nMIIEcutoff",
}


def test_secrets_become_one_word() -> None:
    [found] = disguised(SECRETS)
    text = repr(found)
    for value in ("hunter2", "sesame", "abc", "0011223344", "sup3r", "n0tpub", "pr0xy", "ABCDE", "collector", "tok-1", "sl4ck",
                  "eyJ", "MIIEvQ", "AAAAC3", "jane", "MIIEcut"):  # fmt: skip
        assert value not in text, value
    assert found["Password"] == SECRET
    assert found["Half"] == f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----\n"
    assert disguised({"Password": None, "LicenseKey": ""}) == [{"Password": None, "LicenseKey": ""}]


def test_places_people_and_addresses() -> None:
    chassis = {
        "Location": {
            "PostalAddress": {"Country": "NL", "City": "Amsterdam", "State": "NH", "Street": "Kerkstraat 7", "PostalCode": "1017 GC"},
            "Placement": {"Row": "North", "Rack": "WEB43", "RackOffset": 12},
            "Latitude": 52.36,
        },
        "IPv4": "192.168.44.7", "Text": "gateway 10.8.0.1, 2a02:10:1::77, mail ops@corp.example",
        "Attributes": {"Users.2.UserName": "jane", "Users.3.UserName": "root", "NTPConfigGroup.1.NTP1": "ntp7.corp.example"},
        "Message": "jane logged in; ntp7.corp.example does not answer 192.168.44.7",
    }  # fmt: skip
    [found] = disguised(chassis)
    text = repr(found)
    for gone in (
        "Amsterdam",
        "Kerkstraat",
        "1017",
        "North",
        "WEB43",
        "52.36",
        "192.168.44.7",
        "10.8.0.1",
        "2a02:10",
        "ops@",
        "'jane",
        "ntp7",
        "'NH'",
    ):
        assert gone not in text, gone
    assert found["Location"]["Placement"]["RackOffset"] == 12
    assert found["Attributes"]["Users.3.UserName"] == "root"
    assert re.search(r"2001:db8::", found["Text"])
    assert found["IPv4"] in found["Message"]
    assert re.search(r"\w+(\.\w+)+", found["Attributes"]["NTPConfigGroup.1.NTP1"])


def test_there_is_no_way_back_and_no_two_alike() -> None:
    document = {"SerialNumber": "7XK2P13", "AssetTag": "A-000112"}
    assert disguised(document) != disguised(document)
    fixed = [Disguise(key=b"k" * 32), Disguise(key=b"k" * 32)]
    for one in fixed:
        one.learn(document)
    assert fixed[0].replaced(document) == fixed[1].replaced(document)
    assert fixed[0].counts == {"serial": 2}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["SerialNumber", "Name", "UserName", "Address", "State", "x"]), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(st.text(max_size=12), JSON, max_size=6))
def test_any_document_keeps_its_structure(document: dict[str, Any]) -> None:
    [found] = disguised(document)
    assert shape(found) == shape(document)


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return [shape(v) for v in value.values()]
    if isinstance(value, list):
        return [shape(v) for v in value]
    return type(value).__name__
