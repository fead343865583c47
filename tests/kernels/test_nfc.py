"""The quick check of NFC looks at every code point that Unicode's tables say something of."""

from __future__ import annotations

import numpy as np
import pytest

from gristmill.kernels.tokenizer.nfc import CHECK, first_odd, load_compose_tables

OVERLAY = "\u0360"  # class 234, composes with nothing: marks of lower classes are odd behind it


@pytest.mark.parametrize("gap", [0, 61, 62, 63])
def test_each_code_point_is_doubted_by_itself_as_the_tables_say(gap):
    tables = load_compose_tables()
    codes = [*range(0x80, 0x3300), *range(0x9F00, 0xD800, 13), *range(0xE000, 0x110000, 211)]
    codes += range(0x1D100, 0x1D200)
    texts = ["a" * gap + OVERLAY + chr(code) + "zz" for code in codes]
    raw = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, raw)])
    data = np.frombuffer(b"".join(raw) + "e\u0301".encode() * 32, np.uint8)

    for i, code in enumerate(codes):
        place = first_odd(data, ends[i], ends[i + 1], tables)

        bits = int(tables.stage2[int(tables.stage1[code >> 8]) * 256 + (code & 255)])
        odd = bits & CHECK or 0 < bits & 255 < 234
        assert place == (ends[i] + gap + 2 if odd else ends[i + 1]), hex(code)
