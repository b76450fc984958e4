"""The service is stopped while strangers connect: nothing of theirs is left open."""

from __future__ import annotations

import contextlib
import gc
import socket
import ssl
import threading
import warnings
from pathlib import Path

import pytest
from boot_rig import Rig


def _connect(port: int, stop: threading.Event) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    turn = 0
    while not stop.is_set():
        turn += 1
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as sock:
            if turn % 3:
                with context.wrap_socket(sock) as tls:
                    tls.sendall(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
                    if turn % 2:
                        tls.recv(100)


@pytest.mark.parametrize("_round", range(6))
def test_in_the_middle_of_handshakes(tmp_path: Path, _round: int) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        rig = Rig(tmp_path)
        rig.service.start()
        stop = threading.Event()
        clients = [threading.Thread(target=_connect, args=(rig.machines_port, stop)) for _ in range(8)]
        for client in clients:
            client.start()
        for _ in range(3 + 5 * _round):
            rig.ask("GET", "/nothing")
        rig.close()
        stop.set()
        for client in clients:
            client.join(20)
        gc.collect()
    assert [str(w.message) for w in said if "unclosed" in str(w.message)] == []
