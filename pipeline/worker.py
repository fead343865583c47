"""Inside a process that runs units: what it is doing goes out through a slot that the parent reads.

A slot is four integers in shared memory, written by its worker alone and without a lock: a worker
that is killed in the middle of a write leaves no lock taken behind it, and the parent still sees
which unit it was at.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Callable, MutableSequence
from typing import Any

SLOT_SIZE = 4
ITEM, PROCESS, STARTED, BYTES = range(SLOT_SIZE)
"""Places in a slot: index of the item + 1 (0: none), process id, start (ns since 1970), bytes of
input done since the slots were cleared."""


class EndedError(BaseException):
    """Raised in a unit whose worker is to end: the unit's unfinished files are removed."""


class _Here:
    """This process's slot; without one nothing is told."""

    slots: MutableSequence[int] | None = None
    first = 0
    on_advance: Callable[[], None] | None = None
    in_unit = False


def advance(num_bytes: int) -> None:
    """Report that `num_bytes` more of the unit's input are done (called inside a unit)."""
    if _Here.slots is not None:
        _Here.slots[_Here.first + BYTES] += num_bytes
        if _Here.on_advance is not None:
            _Here.on_advance()


def bytes_done() -> int:
    """Return what `advance` has added up to in this process's slot."""
    return _Here.slots[_Here.first + BYTES] if _Here.slots is not None else 0


def rewind(num_bytes: int) -> None:
    """Go back to an earlier `bytes_done`: the unit is tried again."""
    if _Here.slots is not None:
        _Here.slots[_Here.first + BYTES] = num_bytes


def use_slot(
    slots: MutableSequence[int] | None, on_advance: Callable[[], None] | None = None
) -> None:
    """Let this process use the first slot; `on_advance` is called whenever more is done."""
    _Here.slots, _Here.first, _Here.on_advance = slots, 0, on_advance


def call(function: Callable[[Any], Any], index: int, item: Any) -> Any:
    """Run a unit in a worker of the local executor."""
    slots, first = _Here.slots, _Here.first
    assert slots is not None
    try:
        _Here.in_unit = True
        slots[first + STARTED] = time.time_ns()
        slots[first + ITEM] = index + 1
        result = function(item)
        slots[first + ITEM] = 0
        return result
    except EndedError:
        os._exit(1)  # the slot says what was under way
    except BaseException:
        slots[first + ITEM] = 0
        raise
    finally:
        _Here.in_unit = False


def start_worker(slots: MutableSequence[int], number: Any) -> None:
    """Prepare a spawned worker: a slot, one thread for every library, an end with the parent."""
    with number.get_lock():
        _Here.slots, _Here.first = slots, SLOT_SIZE * number.value
        number.value += 1
    slots[_Here.first + PROCESS] = os.getpid()
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        # A worker waits on its queue forever when the parent is killed; it must not go on
        # writing beside the run that is started next.
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    signal.signal(signal.SIGTERM, _end)
    limit_threads()


def limit_threads() -> None:
    """Keep libraries to one thread: there is a process for each CPU."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import pyarrow

    pyarrow.set_cpu_count(1)
    pyarrow.set_io_thread_count(1)


def _end(*_: Any) -> None:
    """Answer SIGTERM, with which the parent ends its workers."""
    if not _Here.in_unit:
        os._exit(1)
    raise EndedError
