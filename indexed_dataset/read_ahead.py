"""Samples in an order known beforehand: positions in, samples out, fetched before their turn.

Of local files a sample is read when it is wanted. Of files in an object store the places of the
coming samples are computed, what touches is asked for as one range, and requests are under way for
as many bytes as `AHEAD_BYTES` says: memory does not grow with the data, and a trainer waits for no
request once the first have come. How fast that is depends on how much touches: order "stable"
visits blocks of `block_length` tokens, each of which is one range, and the other orders jump.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from . import remote_bin
from .remote_bin import Range, RemoteBin
from .sample import OrderedSamples, Sample, Samples, own_arrays

if TYPE_CHECKING:
    from .samples import SampleDataset

logger = logging.getLogger(__name__)

AHEAD_BYTES = 128 << 20
"""Bytes that are fetched or held before their turn, in each process."""
GOOD_REQUEST_BYTES = 256 << 10
"""Ranges below this are mostly waiting: the user is told."""
_RANGES_JUDGED = 64


def read_in_order(
    samples: OrderedSamples, positions: Iterable[int], *, ahead_bytes: int = AHEAD_BYTES
) -> Generator[Sample, None, None]:
    """Yield the samples at the positions, in that order; `positions` is read some way ahead.

    Raises:
        ObjectStoreError: at the sample whose bytes did not come.
    """
    if not samples.is_remote:
        yield from map(samples.sample, positions)
        return
    ahead = _Ahead(samples, iter(positions), ahead_bytes)
    try:
        yield from ahead.samples()
    finally:
        ahead.close()


def items_together(samples: Samples, indices: Sequence[int]) -> list[Sample]:
    """Return samples that share no array; those of an object store are asked for together."""
    if not samples.is_remote or not all(0 <= index < len(samples) for index in indices):
        return [own_arrays(samples[index]) for index in indices]
    return [own_arrays(sample) for sample in read_in_order(samples, indices)]


class _Ahead:
    """The samples that come next, and the ranges that they lie in."""

    def __init__(self, samples: OrderedSamples, positions: Iterator[int], ahead_bytes: int) -> None:
        self._samples = samples
        self._positions = positions
        self._ahead_bytes = ahead_bytes
        self._waiting: deque[tuple[int, int, list[Range]]] = deque()  # position, bytes, ranges
        self._seen_bytes = self._used_bytes = 0  # of all windows so far
        self._growing: dict[RemoteBin, Range] = {}  # not asked for yet, the oldest in front
        self._begun: dict[RemoteBin, int] = {}  # `_seen_bytes` when each of them began
        self._asked_ranges = self._asked_bytes = 0
        self._is_told = False

    def samples(self) -> Iterator[Sample]:
        """Yield all samples."""
        self._look_ahead()
        while self._waiting:
            position, num_bytes, ranges = self._waiting.popleft()
            self._used_bytes += num_bytes
            for one in ranges:
                if not one.is_asked:  # the end of what is known, or a window of its own
                    self._ask(one)
            yield self._samples.sample(position)
            for one in ranges:
                one.windows -= 1
                if one.windows == 0:
                    one.file.forget(one)
            self._look_ahead()

    def close(self) -> None:
        """Fetch nothing more and hold nothing."""
        for _, _, ranges in self._waiting:
            for one in ranges:
                one.cancel()
                one.file.forget(one)

    def _look_ahead(self) -> None:
        """Take positions until enough bytes are ahead, and ask for what comes soon."""
        while self._seen_bytes - self._used_bytes < self._ahead_bytes or not self._waiting:
            position = next(self._positions, None)
            if position is None:
                break
            try:
                windows = _windows(*self._samples.place(position))
            except IndexError:  # there is none: said when it is its turn
                windows = []
            ranges = [self._place(*one) for one in windows]
            num_bytes = sum(stop - start for _, start, stop in windows)
            self._waiting.append((position, num_bytes, ranges))
            self._seen_bytes += num_bytes
        soon = self._used_bytes + self._ahead_bytes // 2
        while self._growing:
            file, oldest = next(iter(self._growing.items()))
            if self._begun[file] > soon:
                break
            self._ask(oldest)

    def _place(self, file: RemoteBin, start: int, stop: int) -> Range:
        """Return the range that a window lies in: the one that its file has, grown, or a new one.

        A range is asked for when it is large, or when its first window comes soon: so it has the
        time to grow, whatever else is in the blend, and nobody waits for it.
        """
        last = self._growing.get(file)
        if last is None or not last.start <= start <= last.stop:
            if last is not None:
                self._ask(last)
            last = self._growing[file] = Range(file, start, stop)
            self._begun[file] = self._seen_bytes
            file.announce(last)
        else:
            last.stop = max(last.stop, stop)
            last.windows += 1
        if last.stop - last.start >= remote_bin.REQUEST_BYTES:
            self._ask(last)
        return last

    def _ask(self, one: Range) -> None:
        """Ask for a range, which grows no more, and tell once if ranges are small."""
        one.ask()
        if self._growing.get(one.file) is one:
            del self._growing[one.file]
        self._asked_ranges += 1
        self._asked_bytes += one.stop - one.start
        if self._is_told or self._asked_ranges < _RANGES_JUDGED:
            return
        self._is_told = True
        mean = self._asked_bytes // self._asked_ranges
        if mean < GOOD_REQUEST_BYTES:
            logger.warning(
                "%s: the samples lie in ranges of %d KB, and each is a request to the object "
                'store: that is slow. Order "stable" with a block_length (data.block_length) of '
                "some hundred samples, %d tokens say, reads ranges of megabytes",
                one.file.stored.url,
                max(mean >> 10, 1),
                1 << 20,
            )


def _windows(dataset: SampleDataset, number: int) -> list[tuple[RemoteBin, int, int]]:
    """Return what a sample reads from remote files: the file, first byte, byte after the last."""
    found = []
    for start, stop in dataset.spans(number):
        if start < 0:  # the end-of-document token in front of the split
            continue
        for shard, first, count in dataset.split.parts(start, stop - start):
            if shard.remote is not None:
                size = shard.dtype.itemsize
                found.append((shard.remote, first * size, (first + count) * size))
    return found
