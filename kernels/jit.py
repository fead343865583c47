"""Compile kernels: a loop over arrays flows in, machine code that releases the GIL flows out.

All kernels of this folder are decorated with `kernel`, so that the rules stand in one place:

- `nogil=True`: threads may run kernels side by side. Never `parallel=True`: a forked child that
  starts a parallel kernel is killed by the OpenMP runtime.
- No fastmath: results are the same to the bit on every machine.
- Compiled code is cached in a folder named by a hash of all sources that a kernel may call: those
  of its own folder and of the folders above it, up to `kernels/`. Numba's own cache looks at the
  decorated function's file only and misses an edited callee in another file.
- Where no cache can be written, kernels work uncached, with one notice in the log.

`NUMBA_DISABLE_JIT=1` leaves every kernel a Python function, in which unsigned numbers of numpy wrap
as they do in machine code, without numpy's warning.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, overload

import numba as untyped_numba
import numpy as np

numba: Any = untyped_numba  # its annotations know neither its settings nor our options
logger = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])


def compiles() -> bool:
    """Say whether kernels are compiled (not under `NUMBA_DISABLE_JIT=1`)."""
    return not numba.config.DISABLE_JIT


def source_hash(folder: Path) -> str:
    """Hash names and bytes of all Python files directly in `folder`, as 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(folder.glob("*.py")):
        source = path.read_bytes()
        digest.update(f"{path.name}\0{len(source)}\0".encode())
        digest.update(source)
    return digest.hexdigest()


def cache_root() -> Path:
    """Say where compiled code is kept: `GRISTMILL_CACHE_DIR`, else the user's cache folder."""
    chosen = os.environ.get("GRISTMILL_CACHE_DIR")
    if chosen:
        return Path(chosen)
    user_cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(user_cache) if user_cache else Path.home() / ".cache") / "gristmill"


@cache
def cache_folder(sources: Path) -> str | None:
    """Make the cache folder for the kernels in `sources`, or return None where there can be none.

    Args:
        sources: this folder, or one below it (a kernel of elsewhere counts as one of this folder).
    """
    try:
        root = Path(__file__).parent
        folders = [f for f in (sources, *sources.parents) if f == root or root in f.parents]
        names = [source_hash(f) for f in reversed(folders or [root])]
        folder = cache_root() / f"numba-{'-'.join(names)}"
        folder.mkdir(parents=True, exist_ok=True)
        # os.access is no proof on network and overlay file systems; a file is.
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-"):
            pass
    except (OSError, RuntimeError) as error:  # RuntimeError: no home folder is known
        logger.warning(
            "compiled kernels are not cached, so each process compiles them anew: %s. "
            "Set GRISTMILL_CACHE_DIR to a folder that can be written.",
            error,
        )
        return None
    return str(folder)


@contextmanager
def _numba_cache_in(folder: str) -> Iterator[None]:
    """Point numba's cache at `folder` while a function is decorated, and restore what was there.

    Numba reads the setting when a dispatcher is made; other packages keep their own.
    """
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = folder
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before


@overload
def kernel(function: Function) -> Function: ...


@overload
def kernel(*, inline: str = "never", borrows: bool = False) -> Callable[[Function], Function]: ...


def kernel(
    function: Function | None = None, *, inline: str = "never", borrows: bool = False
) -> Any:
    """Compile a function with numba when it is first called, as the module's docstring says.

    Use it bare (`@kernel`) or with `@kernel(inline="always")`, which copies the body into callers
    before types are inferred; LLVM inlines small kernels without being asked.

    `@kernel(borrows=True)` is for kernels that make no arrays and return none: they do not count
    references to those that they are given, which costs several atomic steps each time one is
    passed on. The caller holds them.
    """
    options: dict[str, Any] = {"nogil": True, "inline": inline}
    if borrows:
        options["_nrt"] = False

    def decorate(function: Function) -> Function:
        if numba.config.DISABLE_JIT:
            return np.errstate(over="ignore")(function)
        folder = cache_folder(Path(function.__code__.co_filename).parent)
        if folder is None:
            compiled: Function = numba.njit(**options)(function)
            return compiled
        with _numba_cache_in(folder):
            cached: Function = numba.njit(cache=True, **options)(function)
        return cached

    return decorate if function is None else decorate(function)


def borrowing_kernel(function: Function) -> Function:
    """Compile a function that makes no arrays: `kernel(borrows=True)`."""
    decorated: Function = kernel(borrows=True)(function)
    return decorated


def inner_kernel(function: Function) -> Function:
    """Compile a borrowing kernel that only kernels call, as a part of each of them.

    It gets no entry for Python, no machine code and no file of its own, which were most of what
    a first compilation took; its callers' code, which is cached, contains it. From Python it is
    called in tests with `NUMBA_DISABLE_JIT=1` only; else a call raises TypeError.
    """
    if numba.config.DISABLE_JIT:
        return np.errstate(over="ignore")(function)
    options = {"nogil": True, "_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    dispatcher = numba.njit(pipeline_class=_inner_compiler(), **options)(function)

    def refuse(*arguments: Any, **named: Any) -> None:
        raise TypeError(f"{function.__name__} is an inner kernel: call it from a kernel")

    def add_overload(result: Any) -> None:
        key = object()  # by which callers find it: there is no machine code to point at
        dispatcher.targetctx.insert_user_function(key, result.fndesc, [result.library])
        dispatcher.overloads[tuple(result.signature.args)] = result._replace(entry_point=key)

    dispatcher.add_overload = add_overload  # without telling the part that Python's calls go to
    dispatcher._compile_for_args = refuse
    compiled: Function = dispatcher
    return compiled


@cache
def _inner_compiler() -> Any:
    """Return numba's compiler, made to stop at unoptimized intermediate code.

    Numba optimizes a function before it is linked into its callers, and again in each of them, and
    writes machine code for it by itself. Here all of that happens once, in the public kernel.
    """
    from numba.core.codegen import JITCodeLibrary
    from numba.core.compiler import Compiler

    class InnerLibrary(JITCodeLibrary):  # type: ignore[misc]
        def _optimize_functions(self, module: Any) -> None:
            module.data_layout = self._codegen._data_layout

        def _optimize_final_module(self) -> None:
            pass

        def _finalize_final_module(self) -> None:
            self._finalize_dynamic_globals()  # type: ignore[no-untyped-call]
            self._finalized = True

    class InnerCompiler(Compiler):  # type: ignore[misc]
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)  # type: ignore[no-untyped-call]
            self.state.flags.no_compile = True
            library = InnerLibrary(  # type: ignore[no-untyped-call]
                self.state.targetctx.codegen(), "inner"
            )
            self.state.library = library
            self.state.library.enable_object_caching()

    return InnerCompiler


def as_readonly(array: Any, dtype: Any) -> Any:
    """View `array` as C-contiguous, read-only and of `dtype` (copied only where it is not).

    Numba compiles one version per argument type, and a read-only array is another type than a
    writable one. Inputs that all look alike keep it at one version.

    Raises TypeError where values would change (int64 to uint8, say).
    """
    given = np.asarray(array)
    if given.dtype != dtype and not np.can_cast(given.dtype, dtype, casting="safe"):
        raise TypeError(
            f"a kernel takes {np.dtype(dtype).name} here, but was given {given.dtype.name}; "
            f"convert with .astype(numpy.{np.dtype(dtype).name}) after checking the range"
        )
    view = np.ascontiguousarray(given, dtype=dtype).view()
    view.flags.writeable = False
    return view
