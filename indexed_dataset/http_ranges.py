"""Ranges of files over HTTP: a URL in, bytes out, in the thread that asks.

fsspec's file systems for S3 and HTTP receive in one event loop, a few dozen kilobytes at a time,
and each step waits for Python's lock and for a processor: beside a training that is a quarter of
what the network gives. Here every thread receives its whole range into one buffer.
"""

from __future__ import annotations

import errno
import os
import threading
import urllib.request
from typing import Any

_lock = threading.Lock()
_pools: dict[int, Any] = {}


def can_get(url: str) -> bool:
    """Say whether `get_range` reaches a URL: there is no proxy that only other libraries know."""
    host = url.split("/")[2]
    proxies = urllib.request.getproxies()
    scheme = url.partition("://")[0]
    return not (proxies.get(scheme) or proxies.get("all")) or bool(
        urllib.request.proxy_bypass(host)
    )


def get_range(
    url: str, version: str, start: int, stop: int, *, connect_seconds: float, read_seconds: float
) -> bytearray:
    """Return the bytes [start, stop) of what a URL names.

    Args:
        url: with the signature in it, where one is needed.
        version: ETag that it must have; empty: any.

    Raises:
        OSError: no connection, another status, or fewer bytes; FileNotFoundError: status 404.
    """
    import urllib3

    headers = {"Range": f"bytes={start}-{stop - 1}"}
    if version:
        headers["If-Match"] = f'"{version}"'
    try:
        answer = _pool().request(
            "GET",
            url,
            headers=headers,
            preload_content=False,
            retries=False,
            timeout=urllib3.Timeout(connect=connect_seconds, read=read_seconds),
        )
    except urllib3.exceptions.HTTPError as error:
        raise OSError(str(error)) from error
    whole = False
    try:
        if answer.status == 404:
            raise FileNotFoundError(errno.ENOENT, "no such file", url)
        if answer.status != 206 and not (answer.status == 200 and start == 0):
            raise OSError(f"the server answers with status {answer.status} ({answer.reason})")
        buffer = bytearray(stop - start)
        view, filled = memoryview(buffer), 0
        while filled < len(view):
            # Into the buffer by the system, without a step of Python for each packet.
            count = answer._fp.readinto(view[filled:])
            if not count:
                raise OSError(f"{filled} bytes came instead of {len(view)}")
            filled += count
        whole = answer.status == 206
        return buffer  # as it is: a copy would hold the lock for milliseconds
    finally:
        if whole:
            answer.release_conn()
        else:
            answer.close()


def _pool() -> Any:
    """Return the connections of this process."""
    import urllib3

    with _lock:
        if os.getpid() not in _pools:
            _pools.clear()
            certificates = os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE")
            _pools[os.getpid()] = urllib3.PoolManager(
                num_pools=16, maxsize=32, ca_certs=certificates or None
            )
        return _pools[os.getpid()]


def _new_lock() -> None:
    """A forked process must not wait for a thread that it does not have."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)
