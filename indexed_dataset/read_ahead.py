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

from .remote_bin import REQUEST_BYTES, Range, RemoteBin
from .sample import OrderedSamples, Sample, Samples, own_arrays

if TYPE_CHECKING:
    from .samples import SampleDataset

logger = logging.getLogger(__name__)

AHEAD_BYTES = 128 << 20
"""Bytes that are fetched or held before their turn, in each process."""
GOOD_REQUEST_BYTES = 256 << 10
"""Ranges below this are mostly waiting: the user is told."""
_SMALLEST_SHARE = 4  # a range has at most this part of the bytes ahead of its file


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
        self._num_bytes = 0
        self._growing: dict[RemoteBin, Range] = {}
        self._closed_ranges = self._closed_bytes = 0
        self._is_told = False

    def samples(self) -> Iterator[Sample]:
        """Yield all samples."""
        self._look_ahead()
        while self._waiting:
            position, num_bytes, ranges = self._waiting.popleft()
            yield self._samples.sample(position)
            self._num_bytes -= num_bytes
            for one in ranges:
                one.windows -= 1
                if one.windows == 0:
                    one.file.forget(one)
                    if self._growing.get(one.file) is one:
                        del self._growing[one.file]
            self._look_ahead()

    def close(self) -> None:
        """Fetch nothing more and hold nothing."""
        for _, _, ranges in self._waiting:
            for one in ranges:
                one.cancel()
                one.file.forget(one)

    def _look_ahead(self) -> None:
        """Take positions until enough bytes are ahead."""
        while self._num_bytes < self._ahead_bytes or not self._waiting:
            position = next(self._positions, None)
            if position is None:
                for one in self._growing.values():
                    one.ask()
                return
            try:
                windows = _windows(*self._samples.place(position))
            except IndexError:  # there is none: said when it is its turn
                windows = []
            num_bytes = sum(stop - start for _, start, stop in windows)
            self._waiting.append((position, num_bytes, [self._place(*one) for one in windows]))
            self._num_bytes += num_bytes

    def _place(self, file: RemoteBin, start: int, stop: int) -> Range:
        """Return the range that a window lies in: the last one of its file, grown, or a new one."""
        last = self._growing.get(file)
        if last is not None and last.start <= start and stop <= last.stop:
            last.windows += 1
            return last
        touches = last is not None and last.start <= start <= last.stop
        if last is not None and touches and not last.is_asked:
            last.stop = stop
            last.windows += 1
        else:
            if last is not None:
                self._close(last)
            last = self._growing[file] = Range(file, start, stop)
            file.announce(last)
        if last.stop - last.start >= self._range_bytes():
            last.ask()
        return last

    def _range_bytes(self) -> int:
        share = self._ahead_bytes // (_SMALLEST_SHARE * max(len(self._growing), 1))
        return min(REQUEST_BYTES, share)

    def _close(self, last: Range) -> None:
        """Ask for a range that grows no more, and tell once if they are small."""
        last.ask()
        self._closed_ranges += 1
        self._closed_bytes += last.stop - last.start
        if self._is_told or self._closed_ranges < 64:
            return
        self._is_told = True
        mean = self._closed_bytes // self._closed_ranges
        if mean < GOOD_REQUEST_BYTES:
            logger.warning(
                "%s: the samples lie in ranges of %d KB, and each is a request to the object "
                'store: that is slow. Order "stable" with a block_length (data.block_length) of '
                "some hundred samples, %d tokens say, reads ranges of megabytes",
                last.file.stored.url,
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
