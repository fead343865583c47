"""Compiled tokenizers on disk: a tokenizer.json is compiled once, later runs load the result.

A large tokenizer.json takes seconds to parse and to turn into tables. The result is kept in the
cache folder under the hash of the file's bytes and of all code and libraries that it depends on; it
is written to one side and renamed, so that two first runs at once, or a kill, leave no half of it.
Where the folder cannot be written to, every process compiles anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ...kernels.jit import cache_folder, cache_root, compiles, source_hash
from ..executors import count_workers

logger = logging.getLogger(__name__)

_HERE = Path(__file__).parent
_KERNELS = _HERE.parents[1] / "kernels" / "tokenizer"
_SOURCES = (source_hash(_HERE), source_hash(_KERNELS))
"""What the code is when it is loaded: it may be edited while a process runs."""


@contextlib.contextmanager
def compiling(kind: str) -> Iterator[None]:
    """Compile the kernel `warm_kernels(kind)` in a process of its own meanwhile, if it is not yet.

    It is half of the work of a first run: the other half, reading the tokenizer and compiling what
    makes its tables, is done inside the block. The kernel reaches this process by the cache folder;
    where there is none, or something goes wrong, this process compiles it when it needs it.
    """
    folder = cache_folder(_KERNELS)
    if folder is not None and any(Path(folder).rglob(f"*encode_{kind}*.nbi")):
        yield
        return
    announce_compilation()
    process = None
    if folder is not None and count_workers() > 1 and compiles():
        program = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            f"from gristmill.kernels import warm_kernels; warm_kernels({kind!r})"
        )
        with contextlib.suppress(OSError):
            process = subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
    try:
        yield
    except BaseException:
        if process is not None:
            process.kill()
        raise
    finally:
        if process is not None:
            process.wait()


@cache
def announce_compilation() -> None:
    """Say once that kernels are about to be compiled."""
    logger.warning("compiling the tokenizer kernels, once on this machine (about 15 seconds)")


def cache_path(content: bytes, *options: str) -> Path:
    """Return where the compiled form of a tokenizer.json with these bytes is kept."""
    import tokenizers

    parts = [
        *_SOURCES,
        *(
            hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
            for path in sorted(_KERNELS.glob("*.npz"))
        ),
        tokenizers.__version__,
        np.__version__,
        *options,
    ]
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=16)
    digest.update(content)
    return cache_root() / "tokenizers" / f"{digest.hexdigest()}.pickle"


def load(path: Path) -> Any | None:
    """Return what `save` kept there; None if there is nothing, or it is not to be trusted.

    Only files of this user are read: a pickle runs what its writer wants.
    """
    try:
        if path.stat().st_uid != os.getuid():
            return None
        with path.open("rb") as file:
            return pickle.load(file)
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever a damaged pickle raises: it is made anew
        logger.warning("%s cannot be read (%s), so it is made anew", path, error)
        return None


def save(path: Path, value: Any) -> None:
    """Keep a value, whole or not at all; a place that cannot be written to keeps nothing."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            temporary = file.name
            pickle.dump(value, file, protocol=5)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        logger.info("the compiled tokenizer is not kept: %s", error)
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
