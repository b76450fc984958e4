"""What is nobody's business in a tree of Redfish documents: which properties have it, and what it looks like. Pure."""

from __future__ import annotations

import ipaddress
import re

# Properties, by the last part of their names.
SERIAL = re.compile(
    r"(?i)serial_?number|service_?tag|asset_?tag|express_?service_?code|^(w?wn|wwpn|wwnn|guid|node_?id|eui64|nguid|chassis_?id)$"
    r"|durable_?name$|(node|system|port|virtual)_?guid$|world_?wide|^identifier$|boardserial|^serial$|^uuid$|piroml?snum"
)
NOT_SERIAL = re.compile(r"(?i)serial_?(console|port|interface|comm)|assettagprotection|durablenameformat|assettag@")
NAME = re.compile(
    r"(?i)^(host_?name|fqdn|domain_?name|dns_?(rac|domain)_?name|rac_?name|server_?name|bmc_?name|computer_?name|node_?name"
    r"|subject_?alt\w*|alternative_?names|email\w*|\w*e?mail(_?address)?|from_?address"
    r"|(admin|service)_?(name|email|phone|other_?info)|server_?(other_?info|primary_?os|asset_?tag)|search_?domains?"
    r"|system_?name|sys_?(name|contact|location)|user_?description|created_?by)$"
)
SERVER = re.compile(
    r"(?i)ntp|dns|name_?servers?|syslog|smtp|ldap|proxy|trap|alert|radius|tacacs|kms|tftp|nfs|server|destination|address|common_?name"
)
USER = re.compile(
    r"(?i)^(user_?name|login_?name|account_?name|originator|last_?updated_?by_?user|event_?user|proxy_?user_?name|user)$"
)
# Of a certificate: replaced where they stand, and not looked for elsewhere, since they are makers' names too.
SUBJECT = re.compile(r"(?i)^(common_?name|organi[sz]ation(al_?unit)?)$")
MAKER = re.compile(r"(?i)^(manufacturer|vendor|model|product|product_?name|part_?number|sku_?number)$")
PLACE = re.compile(
    r"(?i)^(row|rack(_?name)?|room(_?name)?|building|aisle|floor|street|house_?number|city|district|division|neighborhood|territory"
    r"|postal_?code|po_?box|landmark|location_?(name|info)|contact_?(name|info)|phone_?number|latitude|longitude|altitude_?meters"
    r"|data_?center(_?name)?|site_?name)$"
)
CERTIFICATE = re.compile(
    r"(?i)^(certificate_?string|public_?key|csr_?string|fingerprint\w*|ssh_?public_?key|x509\w*string|certificate)$"
)
MORE_SECRET = re.compile(
    r"(?i)(password|passphrase|secret|token|auth(entication)?_?(protocol_?)?key|encryption_?key|privacy_?key|license_?(key|number)|activation_?key"
    r"|psk|key_?string|community(_?(string|name))?s?|^httpheaders|^context)$"
)
# GUIDs of kinds of devices, the same on every machine.
KIND = re.compile(r"(?i)^(device_?class|targets|component_?id|class_?id|signature_?type)$")
VERSION = re.compile(r"(?i)version|revision|release|software_?id|firmware|bundle|build")

UUID = re.compile(
    r"(?<![0-9A-Za-z])[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}(?![0-9A-Za-z])"
)
MAC = re.compile(r"(?<![0-9A-Fa-f:-])(?:[0-9A-Fa-f]{2}([:-]))(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}(?![0-9A-Fa-f:-])")
BARE_MAC = re.compile(r"(?i)(?<=MAC[(:= ])[0-9a-f]{12}(?![0-9a-z])")  # of UEFI's device paths and boot options
IPV4 = re.compile(
    r"(?<![\w.-])(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.){3}(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?![\w-]|\.\d)"
)
IPV6 = re.compile(r"(?<![\w:.])(?=[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:)[0-9A-Fa-f:]{3,39}(?![\w:])")
MAIL = re.compile(r"(?<![\w.])[\w.+-]{1,64}@(?!example\.net|odata\.|Redfish\.|Message\.)[\w-]{1,63}(?:\.[\w-]{1,63})+")
PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,40})-----.*?(?:-----END \1-----|\Z)", re.DOTALL)
SSH = re.compile(r"(?:ssh-(?:rsa|dss|ed25519)|ecdsa-sha2-\S{1,40}|sk-\S{1,60}) AAAA[0-9A-Za-z+/=]+(?: \S+)?")
JWT = re.compile(r"eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}")
URL_LOGIN = re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+@")
COLON_HEX = re.compile(r"(?<![0-9A-Fa-f:])(?:[0-9A-Fa-f]{2}:){15,}[0-9A-Fa-f]{2}(?![0-9A-Fa-f:])")

# Names that makes give to accounts themselves, and roles: they say nothing of the owner.
USUAL = frozenset({
    "root", "admin", "administrator", "operator", "readonly", "user", "userid", "none", "guest", "system", "ipmi", "oem", "redfish",
    "bios", "bmc", "uefi", "cpld", "http", "https", "local", "remote", "test", "default", "public", "private", "unknown", "software",
    "n/a", "null", "anonymous", "calvin", "host", "service", "hostautofw", "hostautoos", "localhost", "monitor",
})  # fmt: skip
EMPTY = frozenset({
    "", "n/a", "na", "none", "null", "unknown", "not available", "not present", "not specified", "to be filled by o.e.m.", "default string",
    "0", "00000000", "system serial number", "chassis serial number", "base board serial number", "no asset tag", "empty", "enabled", "disabled",
})  # fmt: skip

SUFFIX = re.compile(r"(_[0-9A-F]{4}|@.*|\d+)$")


def leaf(name: str) -> str:
    """`Users.2.UserName` -> UserName; `AssetTag_0117` -> AssetTag; `Server1` -> Server."""
    return SUFFIX.sub("", name.rpartition(".")[2])


def address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.strip())
    except ValueError:
        return False
    return True


def is_host_name(text: str) -> bool:
    """A name of several parts, that is no version and no file."""
    return re.fullmatch(r"[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63}){0,8}\.[A-Za-z]{2,63}\.?", text) is not None
