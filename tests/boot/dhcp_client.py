"""A DHCP client for tests: python dhcp_client.py INTERFACE MAC [arch=7] [ipxe=1] [class=TEXT] [offer=1]

Discover and request by broadcast (RFC 2131), printed as `key value` lines. Exit status 1: nobody answered. `offer`: stop at it.
"""

from __future__ import annotations

import secrets
import socket
import struct
import sys

COOKIE = b"\x63\x82\x53\x63"
MESSAGE, REQUESTED, SERVER, CLASS, FILE, ARCH, USER_CLASS, NEXT = 53, 50, 54, 60, 67, 93, 77, 66


def packet(mac: bytes, xid: bytes, options: dict[int, bytes]) -> bytes:
    head = struct.pack("!BBBB4sHH", 1, 1, 6, 0, xid, 0, 0x8000) + b"\0" * 16 + mac.ljust(16, b"\0") + b"\0" * 192
    body = b"".join(bytes([code, len(value)]) + value for code, value in options.items())
    return (head + COOKIE + body + b"\xff").ljust(300, b"\0")


def options(data: bytes) -> dict[int, bytes]:
    found, rest = {}, data[240:]
    while rest and rest[0] != 255:
        if rest[0] == 0:
            rest = rest[1:]
            continue
        found[rest[0]] = found.get(rest[0], b"") + rest[2 : 2 + rest[1]]
        rest = rest[2 + rest[1] :]
    return found


def ask(sock: socket.socket, message: bytes, xid: bytes, wanted: int) -> bytes:
    for _ in range(2):
        sock.sendto(message, ("255.255.255.255", 67))
        try:
            while True:
                data = sock.recv(4096)
                if data[4:8] == xid and options(data).get(MESSAGE, b"\0")[0] == wanted:
                    return data
        except TimeoutError:
            continue
    sys.exit(1)


def main(interface: str, mac: str, *words: str) -> None:
    said = dict(word.split("=", 1) for word in words)
    hardware, xid = bytes.fromhex(mac.replace(":", "")), secrets.token_bytes(4)
    more = {55: bytes([1, 3, 6, 66, 67, 60, 43])}
    if "arch" in said:
        more[ARCH] = struct.pack("!H", int(said["arch"]))
    if "class" in said:
        more[CLASS] = said["class"].encode()
    if "ipxe" in said:
        more |= {USER_CLASS: b"iPXE", 175: b"\x01\x01\x01"}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        sock.bind(("", 68))
        sock.settimeout(1.5)
        answer = ask(sock, packet(hardware, xid, {MESSAGE: b"\x01", **more}), xid, 2)
        if "offer" not in said:
            chosen = {REQUESTED: answer[16:20], SERVER: options(answer)[SERVER]}
            answer = ask(sock, packet(hardware, xid, {MESSAGE: b"\x03", **chosen, **more}), xid, 5)
    got = options(answer)
    file = got.get(FILE, b"").rstrip(b"\0") or answer[108:236].rstrip(b"\0")
    print("address", socket.inet_ntoa(answer[16:20]))
    print("server", socket.inet_ntoa(got[SERVER]))
    print("file", file.decode())
    print("class", got.get(CLASS, b"").decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
