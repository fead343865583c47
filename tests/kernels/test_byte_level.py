"""The kernels of byte-level tokenizers do what their slow twins do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill import kernels
from gristmill.kernels import reference
from gristmill.kernels.tokenizer import scan
from gristmill.pipeline.engine.byte_level import _merge_tables
from gristmill.pipeline.token_bytes import byte_level_alphabet

RULES = {
    "gpt2": scan.GPT2,
    "digits": scan.GPT2 | scan.ISOLATE_DIGITS,
    "numbers": scan.GPT2 | scan.ISOLATE_NUMBERS,
    "cl100k": scan.CL100K | scan.CONTRACTIONS,
    "qwen3": scan.CL100K | scan.CONTRACTIONS | scan.SINGLE_DIGITS,
    "qwen3.5": scan.CL100K | scan.CONTRACTIONS | scan.SINGLE_DIGITS | scan.MARKS,
    "ours": scan.CL100K | scan.MARKS,
    "o200k": scan.O200K | scan.CONTRACTIONS,
    "tekken": scan.O200K | scan.SINGLE_DIGITS,
    "deepseek": scan.DEEPSEEK,
    "whole": scan.WHOLE,
}
ATOMS = [
    *"a'stSLlvemdDB1 \t\n\r/!.\x01\x7f",
    *("  ", "\n\n", " a", "é", "É", "中", "文", "か", "・", "ー", "ก", "ั", "́", "ſ", "ʕ", "ǅ", "ß"),
    *("\u00a0", "\u3000", "٣", "\u0903", "“", "😀", "\u200d", "\U00011de0", "12345", "word", "'re"),
]
texts = st.lists(st.lists(st.sampled_from(ATOMS), min_size=1).map("".join), min_size=1, max_size=4)


def pack(strings: list[str]) -> tuple[np.ndarray, np.ndarray]:
    raw = [text.encode() for text in strings]
    offsets = np.cumsum([0, *map(len, raw)], dtype=np.int64)
    return np.frombuffer(b"".join(raw), np.uint8), offsets


@pytest.mark.parametrize("windows", [True, False])
@pytest.mark.parametrize("name", sorted(RULES))
@given(strings=texts)
def test_pieces_end_where_the_expression_says(name, windows, strings):
    data, offsets = pack(strings)
    arguments = data, offsets[:-1], offsets[1:], RULES[name], windows

    mine, theirs = kernels.scan_pieces(*arguments), reference.scan_pieces(*arguments)

    assert mine.tolist() == theirs.tolist()


@pytest.mark.parametrize("name", sorted(RULES))
def test_windows_and_single_pieces_agree_about_letters_that_windows_know_unseen(name):
    edges = [*range(0x3F0, 0x490), *range(0x2FF0, 0x3130), *range(0x4DB0, 0x4E10)]
    edges += [*range(0x80, 0x180), *range(0x5F0, 0x700)]
    edges += [*range(0x9F70, 0x9FFF), *range(0xABF0, 0xAC10), *range(0xD770, 0xD7B0)]
    edges += [ord("a"), ord(" "), ord("!")] * 40
    order = np.random.default_rng(1).permutation(np.tile(edges, 4))
    strings = ["".join(map(chr, order.tolist())), "".join(map(chr, edges))]
    strings += ["中" * 21 + "か" * 30, "дЖ" * 40, "가" * 43]
    data, offsets = pack(strings)

    together = kernels.scan_pieces(data, offsets[:-1], offsets[1:], RULES[name], True)
    alone = kernels.scan_pieces(data, offsets[:-1], offsets[1:], RULES[name], False)

    assert together.tolist() == alone.tolist()


MARKS = "aeoAE\u0300\u0301\u0327\u0323\u0344\u0345\u0958\u0915\u093c\u094d\u1100\u1161\u11a8가각"
MARKS += "\u0e38\u0e48\u0f71\u0f72\u0f73Ω\u2126か\u3099 \x00\U0001d15e"


@given(strings=st.lists(st.text(st.sampled_from(MARKS) | st.characters(), max_size=12), max_size=5))
def test_composition_goes_by_the_book(strings):
    data, offsets = pack([text.encode("utf-8", "ignore").decode() for text in strings])

    mine = kernels.normalize_nfc(data, offsets[:-1], offsets[1:])
    theirs = reference.normalize_nfc(data, offsets[:-1], offsets[1:])

    assert mine[0].tobytes() == theirs[0].tobytes()
    assert mine[1].tolist() == theirs[1].tolist()


@st.composite
def merge_lists(draw):
    """A vocabulary of random merges over a few bytes, those of whole characters among them."""
    alphabet = {byte: character for character, byte in byte_level_alphabet().items()}
    symbols = [alphabet[b] for b in "ab é中か".encode()]
    vocabulary = {alphabet[byte]: byte for byte in range(256)}
    merges = []
    for _ in range(draw(st.integers(0, 40))):
        left, right = draw(st.sampled_from(symbols)), draw(st.sampled_from(symbols))
        if len(left + right) <= 12:
            merges.append([left, right])
            vocabulary.setdefault(left + right, len(vocabulary))
            symbols.append(left + right)
    if draw(st.booleans()):
        for byte in draw(st.lists(st.sampled_from(range(256)), max_size=3)):
            used = any(alphabet[byte] in pair for merge in merges for pair in merge)
            if not used:
                vocabulary.pop(alphabet[byte], None)
    return vocabulary, merges


@given(
    lists=merge_lists(),
    strings=st.lists(st.text(st.sampled_from("ab é中かz"), max_size=60), max_size=6),
)
def test_pieces_merge_by_rank_and_the_leftmost_first(lists, strings):
    tables = _merge_tables(*lists)
    data, offsets = pack(strings)

    mine, theirs = (
        kernels.merge_pieces(data, offsets, tables),
        reference.merge_pieces(data, offsets, tables),
    )

    assert mine[0].tolist() == theirs[0].tolist()
    assert mine[1].tolist() == theirs[1].tolist()
