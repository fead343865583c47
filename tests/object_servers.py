"""A local S3 server (moto), and a proxy in front of it that breaks connections."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
}


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """Yield the address of a moto server of this process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@dataclass
class Breaks:
    """How the proxy breaks connections."""

    after_bytes: tuple[int, int] = (0, 0)
    """Bytes of answers after which a connection is reset: drawn from [low, high)."""
    most: int = 10**9
    """So many connections are broken, then none."""
    refuse: bool = False
    """Reset every connection at once."""
    silent: bool = False
    """Take requests and never answer."""
    broken: int = 0
    """Connections that were broken so far."""


class CuttingProxy:
    """Forwards TCP connections to a server and resets them in the middle of answers."""

    def __init__(self, target: str, breaks: Breaks, seed: int = 0) -> None:
        host, port = target.removeprefix("http://").split(":")
        self._target = host, int(port)
        self.breaks = breaks
        self._random = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        breaks = self.breaks
        if breaks.refuse:
            breaks.broken += 1
            _reset(client)
            return
        server = socket.create_connection(self._target)
        threading.Thread(target=_forward, args=(client, server), daemon=True).start()
        left = None
        if breaks.after_bytes[1] and breaks.broken < breaks.most:
            left = self._random.randrange(*breaks.after_bytes)
        while True:
            try:
                data = server.recv(1 << 16)
            except OSError:
                data = b""
            if not data:
                break
            if breaks.silent:
                continue
            if left is not None and len(data) >= left:
                with contextlib.suppress(OSError):
                    client.sendall(data[:left])
                breaks.broken += 1
                _reset(client)
                _reset(server)
                return
            if left is not None:
                left -= len(data)
            try:
                client.sendall(data)
            except OSError:
                break
        for one in (client, server):
            one.close()


def _forward(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _reset(connection: socket.socket) -> None:
    """Close with an RST, as a machine that has crashed or a firewall does."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)
    connection.close()
