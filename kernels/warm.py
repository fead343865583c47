"""Every kernel is called once on a few bytes: compiled code in the cache flows out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .components import join_buckets, resolve_components
from .distinct import shingle_lists
from .document_statistics import text_statistics
from .hashing import hash_documents
from .json_escapes import unescape_json
from .json_lines import find_json_strings
from .masking import mask_tokens
from .megatron import blend_greedily, build_sample_index
from .minhash import band_keys
from .packing import pack_best_fit
from .payload import shingle_sets, source_shingles
from .permutation import NUM_KEYS, permute
from .similarity import set_jaccard
from .surrounding import surround_documents
from .token_spans import text_windows
from .tokenizer import piece_memo, warm_tables
from .tokenizer.byte_level import encode_byte_level
from .tokenizer.charsmap import normalize_charsmap
from .tokenizer.classes import load_classes
from .tokenizer.lanes import new_lanes
from .tokenizer.memo import new_batch, new_memo
from .tokenizer.merges import empty_tables
from .tokenizer.nfc import normalize_nfc
from .tokenizer.piece_merges import merge_pieces, new_scratch
from .tokenizer.pieces import scan_pieces
from .tokenizer.sentencepiece import encode_sentencepiece
from .tokenizer.text_rules import apply_text_rule
from .tokenizer.unigram import encode_unigram, new_path
from .tokenizer.wordpiece import encode_wordpiece
from .verification import verify_group
from .window_search import find_windows
from .winnowing import winnow


def compile_all() -> None:
    """Call each public kernel with the argument types that it is used with."""
    compile_dedup()
    _compile_reading()
    _compile_orders()
    compile_passages()
    _compile_windows()
    _compile_tokenizers()


def compile_dedup() -> None:
    """Call the kernels that dedup works with: those of tokenizers take several times as long."""
    data, offsets = _text()
    hash_documents(data, offsets)
    band_keys(data, offsets)
    lists, list_offsets, shifts, windows = shingle_lists(data, offsets)
    sources = np.zeros(1, np.uint64)
    source_shingles(lists, list_offsets[:-1], np.diff(list_offsets), sources, 0, 0)
    sets = shingle_sets(lists, list_offsets, windows, sources, sources)
    set_jaccard(sets[0], sets[0])
    buckets, bucket_offsets = np.zeros(1, np.int64), np.arange(2)
    verify_group(
        sets[0], sets[1], shifts, sets[2], sets[3], buckets, bucket_offsets, np.zeros(1, bool), 0.8
    )
    parents = np.full(1, -1, np.int32)  # as of less than 2**31 documents
    join_buckets(parents, np.array([-1, 0], np.int64))
    resolve_components(parents)


def _text() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    data = np.frombuffer(b"warm kernels", np.uint8)
    return data, np.array([0, len(data)], np.int64)


def _compile_reading() -> None:
    data, offsets = _text()
    _, _, _, spans = find_json_strings(data, data[:4], offsets[:1])
    unescape_json(data, spans.reshape(-1, 2), np.zeros(0, np.bool_))
    text_statistics(data, offsets, [["a"]], np.zeros(1, np.int32))


def _compile_orders() -> None:
    build_sample_index(np.ones(1, np.int32), np.zeros(1, np.int32), 1, 1)
    blend_greedily(np.ones(1), np.ones(1, np.int64), np.zeros(1, np.int64), 0, 1)
    pack_best_fit(np.array([1, 3], np.int64), 2)
    places = np.zeros((1, 1), np.int64)
    mask_tokens(places, places == 0, places[0], 0, np.zeros(1, np.uint8), 0)
    permute(np.arange(1, dtype=np.int64), 1, np.arange(NUM_KEYS, dtype=np.uint64))


def _compile_windows() -> None:
    data, offsets = _text()
    found = text_windows(data, offsets, 240)
    find_windows(data, offsets, 240, 48, found[0], found[0], found[0], found[1])


def compile_passages() -> None:
    """Call the kernels that look for repeated passages."""
    data, offsets = _text()
    hash_documents(data, offsets)
    winnow(data, offsets, 4, 4)


def _compile_tokenizers() -> None:
    data, offsets = _text()
    for dtype in (np.uint16, np.int32):
        surround_documents(np.zeros(0, dtype), offsets[:0])
    scan_pieces(data, offsets[:-1], offsets[1:], 0)
    normalize_nfc(data, offsets[:-1], offsets[1:])
    merge_pieces(data, offsets, empty_tables())
    for encoder in ENCODERS.values():
        encoder()
    segments = warm_tables.no_segments()
    text, written, starts, ends = segments[0], np.zeros(1, np.uint8), offsets[:0], offsets[:0]
    normalize_charsmap(*segments[:4], warm_tables.CHARSMAP, written, starts, ends)
    apply_text_rule(*segments[:4], 0, *warm_tables.CHARSMAP[:2], text, text, written, starts, ends)


def _compile_byte_level() -> None:
    known = piece_memo.KnownPieces(np.zeros(0, np.uint64), np.zeros(16, np.int32))
    encode_byte_level(
        *warm_tables.no_segments()[:4],
        *load_classes(),
        np.int64(0),
        empty_tables(),
        known,
        piece_memo.new_memo(2, 2, 16),
        new_scratch(1),
        new_lanes(),
        *warm_tables.no_ids(),
    )


def _compile_sentencepiece() -> None:
    memo, batch, scratch = new_memo(16), new_batch(), warm_tables.no_scratch()
    encode_sentencepiece(
        *warm_tables.no_segments(),
        warm_tables.SENTENCEPIECE,
        memo,
        batch,
        scratch,
        *warm_tables.no_ids(),
    )


def _compile_wordpiece() -> None:
    memo, batch, scratch = new_memo(16), new_batch(), np.zeros(1, np.int32)
    encode_wordpiece(
        *warm_tables.no_segments(),
        warm_tables.WORDPIECE,
        memo,
        batch,
        scratch,
        *warm_tables.no_ids(),
    )


def _compile_unigram() -> None:
    encode_unigram(
        *warm_tables.no_segments(),
        warm_tables.UNIGRAM,
        new_memo(16),
        new_batch(),
        new_path(1),
        *warm_tables.no_ids(),
    )


ENCODERS = {
    "byte_level": _compile_byte_level,
    "sentencepiece": _compile_sentencepiece,
    "wordpiece": _compile_wordpiece,
    "unigram": _compile_unigram,
}
"""The largest kernel of each kind of tokenizer."""
