"""Threads whose results come in the order of the items, a few at a time."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import pytest

from gristmill.pipeline.ordered import map_in_order


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(threads: int) -> None:
    def slow_if_even(item: int) -> int:
        time.sleep(0.002 * (item % 2 == 0))
        return item * item

    assert list(map_in_order(slow_if_even, range(40), threads)) == [n * n for n in range(40)]


@pytest.mark.parametrize("threads", [1, 3])
def test_items_are_taken_only_a_few_ahead_of_the_results(threads: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for item in range(50):
            taken += 1
            yield item

    for count, _ in enumerate(map_in_order(lambda item: item, items(), threads)):
        assert taken <= count + 1 + 2 * threads
    assert taken == 50


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_comes_at_its_place_and_ends_the_threads(threads: int) -> None:
    def fail_at_five(item: int) -> int:
        if item == 5:
            raise ValueError("five")
        return item

    found: list[int] = []
    with pytest.raises(ValueError, match="five"):
        found.extend(map_in_order(fail_at_five, range(100), threads))

    assert found == list(range(5))
    assert not [one for one in threading.enumerate() if one.name.startswith("gristmill")]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt: a library of another test may have its own handler."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_while_waiting_ends_the_threads() -> None:
    def work(item: int) -> int:
        if item == 1:
            signal.raise_signal(signal.SIGINT)
        time.sleep(0.05)
        return item

    with pytest.raises(KeyboardInterrupt):
        list(map_in_order(work, range(1000), 2))

    assert not [one for one in threading.enumerate() if one.name.startswith("gristmill")]
