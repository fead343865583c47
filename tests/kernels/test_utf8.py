"""The kernel that looks for bad UTF-8 finds what Python's decoder finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.kernels.jit import as_readonly
from gristmill.kernels.tokenizer.utf8 import first_invalid

CHARACTERS = st.sampled_from([*"aé中😀\x7f\x80\u07ff\u0800\ud7ff\uffff\U00010000\U0010ffff"])
BYTES = (0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF)
BYTES += (0xE0, 0xED, 0xEF, 0xF0, 0xF4, 0xF5, 0xFF)


def find(text: bytes, before: bytes = b"") -> int:
    data = np.frombuffer(before + text + bytes([0x80]) * 64, np.uint8)
    begin = len(before)
    place = first_invalid(as_readonly(data, np.uint8), np.int64(begin), np.int64(begin + len(text)))
    return int(place) - begin if place >= 0 else -1


def decoded(text: bytes) -> int:
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return error.start
    return -1


@given(
    text=st.text(CHARACTERS, max_size=150),
    wrong=st.lists(st.tuples(st.integers(0), st.none() | st.sampled_from(BYTES)), max_size=2),
    before=st.sampled_from([b"", b"\xe4", b"\xf0\x90", b"\xc3\xc3\xc3"]),
)
def test_the_first_bad_byte_is_where_the_decoder_stops(text, wrong, before):
    raw = bytearray(text.encode())
    for place, byte in wrong:
        if byte is None:
            del raw[place % (len(raw) + 1) :]
        elif raw:
            raw[place % len(raw)] = byte

    assert find(bytes(raw), before) == decoded(bytes(raw))


@pytest.mark.parametrize("gap", [0, 1, 2, 3, 61, 62, 63, 64, 70])
def test_every_pair_of_bytes_is_judged_wherever_it_stands(gap):
    for first in range(0x7E, 256):
        for second in BYTES:
            for rest in range(3):
                text = b"a" * gap + bytes([first, second]) + b"\x80" * rest
                for tail in (b"", b"b" * 70):
                    assert find(text + tail) == decoded(text + tail)
