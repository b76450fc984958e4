"""A read-only disk served to QEMU over a Unix socket, in the Network Block Device protocol (NBD's doc/proto.md).

QEMU could read a URL by itself (its http driver, package qemu-block-extra), and did at first. But that driver loses
requests: with QEMU 7.2.22 and libcurl 7.88.1 (Debian 12) about one boot in three stalled on a busy machine, and
`qemu-img bench` on a plain web server hung for good. So the BMC reads, as real ones do, and QEMU asks the BMC.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

LOG = logging.getLogger(__name__)

FIXED_NEWSTYLE, NO_ZEROES = 1, 2
HAS_FLAGS, READ_ONLY, CAN_MULTI_CONN = 1, 2, 256
OPT_EXPORT_NAME, OPT_ABORT, OPT_INFO, OPT_GO = 1, 2, 6, 7
REP_ACK, REP_INFO, REP_ERR_UNSUP = 1, 3, (1 << 31) | 1
CMD_READ, CMD_DISC, CMD_FLUSH = 0, 2, 3
REQUEST, REPLY = 0x25609513, 0x67446698
OPTION_MAGIC, OPTION_REPLY_MAGIC = b"IHAVEOPT", 0x3E889045565A9
LARGEST = 32 << 20  # bytes of one request

Read = Callable[[int, int], bytes]


class Export:
    """Listens at `path` until `close`. `read(offset, length)` gives the bytes or raises OSError."""

    def __init__(self, path: Path, size: int, read: Read) -> None:
        self._path = path
        self._size = size
        self._read = read
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            self._listener.bind(f"/proc/self/fd/{folder}/{path.name}")  # the path itself may be too long
            self._listener.listen(4)
        except OSError:
            self._listener.close()
            raise
        finally:
            os.close(folder)
        self._thread = threading.Thread(target=self._accept, name="nbd", daemon=True)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()
        with self._guard:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            with self._guard:
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), name="nbd-client", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                if self._negotiate(connection):
                    while self._answer(connection):
                        pass
        except (OSError, EOFError, ValueError) as exc:
            LOG.debug("NBD connection ends: %s", exc)
        finally:
            with self._guard:
                self._open.discard(connection)

    def _negotiate(self, connection: socket.socket) -> bool:
        """True when transmission begins. Options that we do not know are refused, which is allowed for each."""
        connection.sendall(b"NBDMAGIC" + OPTION_MAGIC + struct.pack(">H", FIXED_NEWSTYLE | NO_ZEROES))
        (client,) = struct.unpack(">I", _exactly(connection, 4))
        export = struct.pack(">QH", self._size, HAS_FLAGS | READ_ONLY | CAN_MULTI_CONN)
        while True:
            magic, option, length = struct.unpack(">8sII", _exactly(connection, 16))
            if magic != OPTION_MAGIC or length > 1 << 16:
                raise ValueError("no NBD option")
            _exactly(connection, length)
            if option == OPT_EXPORT_NAME:
                connection.sendall(export + (b"" if client & NO_ZEROES else bytes(124)))
                return True
            if option in (OPT_INFO, OPT_GO):
                connection.sendall(_option_reply(option, REP_INFO, struct.pack(">H", 0) + export))
            known = option in (OPT_INFO, OPT_GO, OPT_ABORT)
            connection.sendall(_option_reply(option, REP_ACK if known else REP_ERR_UNSUP))
            if option in (OPT_GO, OPT_ABORT):
                return bool(option == OPT_GO)

    def _answer(self, connection: socket.socket) -> bool:
        magic, _flags, kind, handle, offset, length = struct.unpack(">IHHQQI", _exactly(connection, 28))
        if magic != REQUEST:
            raise ValueError("no NBD request")
        if kind == CMD_DISC:
            return False
        data, error = b"", 0
        if kind == CMD_READ and length <= LARGEST:
            try:
                data = self._read(offset, length)
            except OSError as exc:
                LOG.warning("media: %s", exc)
                error = errno.EIO
        elif kind != CMD_FLUSH:
            error = errno.EPERM  # a write's data would follow: the connection ends
        connection.sendall(struct.pack(">IIQ", REPLY, error, handle) + data)
        return error != errno.EPERM


def _option_reply(option: int, kind: int, data: bytes = b"") -> bytes:
    return struct.pack(">QIII", OPTION_REPLY_MAGIC, option, kind, len(data)) + data


def _exactly(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        piece = connection.recv(length - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data
