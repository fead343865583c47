"""Files of an object store: a URL in (s3://bucket/key, and whatever fsspec knows), bytes out.

Nothing is believed that was not counted: a range comes back with all its bytes, or there is an
error. What can pass (a connection that is reset, a busy server) is tried again with growing pauses;
what cannot (no such file, no permission) is said at once. fsspec is imported when the first URL is
met, and the file systems are made anew in a forked process.
"""

from __future__ import annotations

import errno
import importlib.util
import logging
import os
import posixpath
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from .errors import IndexedDatasetError

logger = logging.getLogger(__name__)

PAUSES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between the tries, each lengthened by up to a half at random: seven tries in all."""
CONNECT_SECONDS = 10
READ_SECONDS = 30
"""How long a server may be silent before the request is given up (S3; else the library's own)."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotImplementedError, ImportError)
_FINAL_NAMES = {"NoCredentialsError", "PartialCredentialsError", "NoAuthTokenError"}

Result = TypeVar("Result")

_lock = threading.Lock()
_systems: dict[tuple[int, str], Any] = {}


class ObjectStoreError(IndexedDatasetError, OSError):
    """An object store did not answer, or not with the bytes that were asked for."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.EIO, message)

    def __str__(self) -> str:
        return str(self.args[-1])  # without the error's number


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as the store had it when it was looked up."""

    url: str
    size_bytes: int
    version: str
    """What changes when the content does: the ETag, else the time of the last change."""


def is_url(path: str | os.PathLike[str]) -> bool:
    """Say whether a path is a URL: `s3://bucket/key`, but not `C:/x` and not `folder/file`."""
    return isinstance(path, str) and _URL.match(path) is not None


def join_path(folder: str | os.PathLike[str], *names: str) -> str:
    """Return the path, or URL, of a name in a folder; `..` in a name goes up."""
    if not is_url(folder):
        return os.path.join(folder, *names)
    scheme, _, rest = os.fspath(folder).partition("://")
    return f"{scheme}://{posixpath.normpath(posixpath.join(rest, *names))}"


def look_up(url: str) -> StoredFile:
    """Return size and version of one file.

    Raises:
        FileNotFoundError: there is none.
        ObjectStoreError: the store does not answer.
    """
    system, path = file_system(url)
    facts = patiently(lambda: system.info(path), url, "looking it up")
    if facts.get("type") != "file" or facts.get("size") is None:
        raise FileNotFoundError(errno.ENOENT, "no such file (or one of unknown size)", url)
    return _stored(url, facts)


def list_files(folder: str) -> dict[str, StoredFile]:
    """Return all files below a folder by their names relative to it, sorted; {}: no folder.

    Raises:
        ObjectStoreError: the store does not answer.
    """
    system, path = file_system(folder)
    found = patiently(lambda: system.find(path, detail=True), folder, "listing it")
    root = system._strip_protocol(path).rstrip("/") + "/"
    return {
        name[len(root) :]: _stored(join_path(folder, name[len(root) :]), facts)
        for name, facts in sorted(found.items())
        if name.startswith(root) and facts.get("type") == "file"
    }


def folder_exists(folder: str | os.PathLike[str]) -> bool:
    """Say whether there is such a folder; in a store: whether a file lies below it."""
    if not is_url(folder):
        return os.path.isdir(folder)
    system, path = file_system(os.fspath(folder))
    return bool(patiently(lambda: system.isdir(path), os.fspath(folder), "looking it up"))


def read_range(file: StoredFile, start: int, stop: int) -> bytes:
    """Return the bytes [start, stop) of a file, all of them.

    Raises:
        ObjectStoreError: the store does not answer, or the file is another one by now.
    """
    system, path = file_system(file.url)

    def read() -> bytes:
        data = _get(system, path, file, start, stop)
        if len(data) != stop - start:
            raise OSError(f"{len(data)} bytes came instead of {stop - start}")
        return data

    if stop <= start:
        return b""
    try:
        return patiently(read, file.url, f"reading bytes {start} to {stop}", lambda: _same(file))
    except FileNotFoundError:
        raise ObjectStoreError(f"{file.url} was removed while it was being read") from None


def patiently(
    operation: Callable[[], Result],
    url: str,
    what: str,
    before_again: Callable[[], None] = lambda: None,
) -> Result:
    """Return what `operation` returns, tried again with pauses while its errors may pass.

    Args:
        operation: may be done several times.
        url: of what; for messages.
        what: "reading bytes 0 to 5"; for messages.
        before_again: called before every further try; may raise to end them.

    Raises:
        ObjectStoreError: it still failed after all pauses; names the URL and the last error.
        FileNotFoundError, PermissionError: as they come.
    """
    begun = time.monotonic()
    for number, pause in enumerate((*PAUSES, None)):
        try:
            if number:
                before_again()
            return operation()
        except ObjectStoreError:
            raise
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, "no such file or folder", url) from None
        except Exception as error:
            if isinstance(error, _FINAL) or type(error).__name__ in _FINAL_NAMES:
                raise ObjectStoreError(
                    f"{url}: {what} is refused ({_said(error)}). Check the address and the "
                    "credentials (docs/scaling.md, Object stores)"
                ) from error
            if pause is None:
                raise ObjectStoreError(
                    f"{url}: {what} failed {number + 1} times in "
                    f"{time.monotonic() - begun:.0f} s, in the end with {_said(error)}. Check the "
                    "network and the store, and run the same command again"
                ) from error
            logger.info("%s: %s failed (%s); trying again", url, what, _said(error))
            time.sleep(pause * (1 + random.random() / 2))
    raise AssertionError("unreachable")


def file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system for a URL, one for each process, and the path in it.

    Raises:
        ObjectStoreError: the library for this kind of URL is not installed.
    """
    scheme = url.partition("://")[0]
    try:
        import fsspec
        from fsspec.core import strip_protocol

        key = os.getpid(), scheme
        with _lock:
            if key not in _systems:
                _systems[key] = _new_system(fsspec, scheme)
        return _systems[key], strip_protocol(url)
    except ImportError as error:
        extra = "'gristmill[s3]'" if scheme in ("s3", "s3a") else f"what fsspec needs for {scheme}"
        raise ObjectStoreError(
            f"{url} cannot be opened: {error}. Install it: pip install {extra}"
        ) from error
    except ValueError as error:
        raise ObjectStoreError(f"{url} cannot be opened: {error}") from error


def forget_file_systems() -> None:
    """Make file systems anew: credentials or addresses in the environment have changed."""
    with _lock:
        _systems.clear()


def _new_system(fsspec: Any, scheme: str) -> Any:
    """Return a file system of our own: what it caches, and how patient it is, is ours to say."""
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if scheme in ("s3", "s3a"):
        if importlib.util.find_spec("s3fs") is None:
            raise ImportError("s3fs is not installed")
        given = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
        options["config_kwargs"] = {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
            "retries": {"total_max_attempts": 1},  # `patiently` is what tries again
            **given,
        }
    system = fsspec.filesystem(scheme, **options)
    if hasattr(system, "retries"):
        system.retries = 1
    return system


def _stored(url: str, facts: dict[str, Any]) -> StoredFile:
    keys = ("ETag", "etag", "md5", "mtime", "LastModified", "last_modified", "updated", "created")
    version = next((str(facts[key]) for key in keys if facts.get(key)), "")
    return StoredFile(url, int(facts["size"]), version.strip('"'))


def _get(system: Any, path: str, file: StoredFile, start: int, stop: int) -> bytes:
    """Return a range of a file; S3 is told which version it is to be of."""
    if not hasattr(system, "_call_s3"):
        return bytes(system.cat_file(path, start=start, end=stop))
    from fsspec.asyn import sync

    async def get() -> bytes:
        bucket, key, _ = system.split_path(path)
        answer = await system._call_s3(
            "get_object",
            Bucket=bucket,
            Key=key,
            Range=f"bytes={start}-{stop - 1}",
            IfMatch=f'"{file.version}"',
        )
        async with answer["Body"] as body:
            return bytes(await body.read())

    return bytes(sync(system.loop, get))


def _same(file: StoredFile) -> None:
    """Refuse to go on with a file that was replaced; a store that is silent is asked later."""
    system, path = file_system(file.url)
    try:
        now = _stored(file.url, system.info(path))
    except FileNotFoundError:
        raise
    except Exception:
        return
    if now != file:
        raise ObjectStoreError(
            f"{file.url} was replaced while it was being read: it had {file.size_bytes} bytes and "
            f"version {file.version}, and has {now.size_bytes} and {now.version}. Start again, so "
            "that everything is read from one version"
        )


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]


def _new_lock() -> None:
    """A forked process must not wait for a thread that it does not have."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)
