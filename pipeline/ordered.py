"""Work for threads, in order: items in, their results out in the same order, a few at a time.

Kernels, Arrow and `tokenizers` release the interpreter's lock, so threads use all cores. One
process means one start and one set of tables, and that one compressed file feeds all threads.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from .executors import POLL_SECONDS, signals_held_back

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Iterator[Result]:
    """Yield function(item) of each item, in order.

    At most two items a thread are under way, so memory does not grow with their number. With one
    thread everything happens in the calling one. An error of an item is raised at its place.
    """
    if threads == 1:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="gristmill")
    waiting: collections.deque[Future[Result]] = collections.deque()
    try:
        for item in items:
            with signals_held_back():
                waiting.append(pool.submit(function, item))
            if len(waiting) >= 2 * threads:
                yield _result(waiting.popleft())
            while waiting and waiting[0].done():
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())
    finally:
        with signals_held_back():
            pool.shutdown(wait=True, cancel_futures=True)


def _result(future: Future[Result]) -> Result:
    """Wait for a result; signals are answered between two looks."""
    while True:
        with signals_held_back():
            done, _ = wait([future], timeout=POLL_SECONDS)
            if done:
                return future.result()
