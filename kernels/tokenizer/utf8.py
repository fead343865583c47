"""Whether texts are valid UTF-8: documents flow in, the first bad place out (RFC 3629)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..jit import borrowing_kernel as kernel
from .intrinsics import utf8_errors64

_0 = np.uint64(0)


@kernel
def first_invalid(data: Any, begin: Any, end: Any) -> Any:
    """Return the place of the first byte in data[begin:end] that is no valid UTF-8, or -1.

    `data` is readable for 64 bytes behind `end`.
    """
    at = begin
    while at < end:
        if at - begin >= 3 and end - at > 64 and utf8_errors64(data, at) == _0:
            at += 64
            continue
        # One character after the other: the first, the last, and where something is wrong.
        for back in range(1, 4):
            if at - back >= begin and data[at - back] >= 0xC0:
                at -= back  # a character that may go on here
                break
        stop = min(end, at + 64)
        while at < stop:
            first = np.int64(data[at])
            if first < 0x80:
                at += 1
                continue
            size = np.int64(2)
            low, top = np.int64(0x80), np.int64(0xBF)  # what the second byte may be
            if first >= 0xE0 and first < 0xF0:
                size = np.int64(3)
                if first == 0xE0:
                    low = np.int64(0xA0)  # shorter forms exist below
                elif first == 0xED:
                    top = np.int64(0x9F)  # surrogates above
            elif first >= 0xF0:
                size = np.int64(4)
                if first == 0xF0:
                    low = np.int64(0x90)
                elif first == 0xF4:
                    top = np.int64(0x8F)
            if first < 0xC2 or first > 0xF4 or at + size > end:
                return at
            second = np.int64(data[at + 1])
            if second < low or second > top:
                return at
            for i in range(2, size):
                if data[at + i] & 0xC0 != 0x80:
                    return at
            at += size
    return np.int64(-1)
