"""Byte-level BPE behind the frame: a tokenizer.json's model in, its tables and kernel out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...kernels.jit import as_readonly
from ...kernels.tokenizer.byte_level import encode_byte_level
from ...kernels.tokenizer.characters import find_unmerged, measure_characters
from ...kernels.tokenizer.classes import load_classes
from ...kernels.tokenizer.lanes import Lanes, new_lanes
from ...kernels.tokenizer.merges import (
    ALWAYS,
    ID_BITS,
    NO_RANK,
    RANK_BITS,
    MergeTables,
    Scratch,
    insert_pairs,
)
from ...kernels.tokenizer.nfc import compose_segments, first_odd, load_compose_tables
from ...kernels.tokenizer.piece_memo import KnownPieces, Memo, hash_bytes, new_memo, seed_memo
from ...kernels.tokenizer.piece_merges import new_scratch
from ...kernels.tokenizer.pieces import SLACK, prefix_spaces
from .. import cuts
from ..token_bytes import byte_level_alphabet
from .frame import Segments
from .memory import huge_zeros
from .pretokenizers import find_rules, flatten
from .unsupported import UnsupportedError

SHORT_LINES, LONG_LINES, ARENA = 1 << 20, 1 << 19, 1 << 25
"""Size of a worker's memo: 64 MB, 32 MB and 128 MB, of which only what is used is ever touched. On
100 MB of mixed languages GPT-2, whose pieces have many ids, is as slow in a later pass as in the
first one with half of it, other models with an eighth."""


class NfcNormalizer:
    """The normalizer NFC; see `frame.Normalizer`."""

    def normalize(
        self, data: NDArray[np.uint8], segments: Segments
    ) -> tuple[NDArray[np.uint8], Segments]:
        """Compose the text of segments; what is composed already is not copied."""
        if not len(segments.starts):
            return data, segments
        tables = load_compose_tables()
        begin, end = np.int64(segments.starts[0]), np.int64(segments.ends[-1])
        if first_odd(data, begin, end, tables) >= end:
            return data, segments
        out = np.empty(3 * (end - begin) + SLACK, np.uint8)
        starts, ends = np.empty_like(segments.starts), np.empty_like(segments.ends)
        longest = 2 * int((segments.ends - segments.starts).max()) + 4
        codes, orders = np.empty(longest, np.int64), np.empty(longest, np.int64)
        compose_segments(data, *segments[:3], tables, codes, orders, out, starts, ends)
        return as_readonly(out, np.uint8), segments._replace(starts=starts, ends=ends)


@dataclass(frozen=True, slots=True)
class ByteLevelModel:
    """See `frame.Model`."""

    rules: int
    tables: MergeTables
    known: KnownPieces
    seeds: tuple[Any, Any, Any]
    """(data, offsets, ids) of strings that are one id: what a new memo knows."""
    prefix_space: bool
    normalizer: NfcNormalizer | None
    cuts: str | None
    expansion: int = 1

    def new_state(self) -> State:
        """Return an empty memo."""
        memo = new_memo(SHORT_LINES, LONG_LINES, ARENA, huge_zeros)
        seed_memo(*self.seeds, memo)
        return State(memo, new_scratch(1 << 12), new_lanes())

    def encode_segments(
        self,
        data: NDArray[np.uint8],
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        tokens: NDArray[np.int32],
        first: NDArray[np.uint8],
        state: Any,
        out: NDArray[np.int32],
        segment_ids: NDArray[np.int64],
    ) -> int:
        """Encode segments; see `frame.Model`."""
        stage1, stage2 = load_classes()
        if self.prefix_space:
            room = int((ends - starts).sum()) + len(starts) + SLACK
            spaced = np.empty(room, np.uint8)
            moved = np.empty_like(starts), np.empty_like(ends)
            prefix_spaces(data, starts, ends, tokens, spaced, *moved)
            data, (starts, ends) = as_readonly(spaced, np.uint8), moved
        longest = int((ends - starts).max(initial=0)) + 2
        if longest > len(state.scratch.symbols):
            state.scratch = new_scratch(2 * longest)
        return int(
            encode_byte_level(
                data,
                starts,
                ends,
                tokens,
                stage1,
                stage2,
                np.int64(self.rules),
                self.tables,
                self.known,
                state.memo,
                state.scratch,
                state.lanes,
                out,
                segment_ids,
            )
        )


@dataclass(slots=True)
class State:
    """What a worker has beside the tables."""

    memo: Memo
    scratch: Scratch
    lanes: Lanes


def compile_model(config: dict[str, Any], vocabulary: dict[str, int]) -> ByteLevelModel | None:
    """Return the model of a tokenizer.json, None if it is no byte-level BPE.

    Raises:
        UnsupportedError: it is one, with a feature that the kernel does not reproduce.
    """
    model = config["model"]
    if model["type"] != "BPE" or model.get("byte_fallback"):
        return None
    rules, prefix_space = find_rules(config["pre_tokenizer"])
    steps = flatten(config["normalizer"], "normalizers")
    for step in steps:
        if step["type"] != "NFC":
            raise UnsupportedError(f"the normalizer {step['type']} before a byte-level model")
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise UnsupportedError("continuing_subword_prefix or end_of_word_suffix")
    if model.get("unk_token") is not None:
        raise UnsupportedError("an unk_token in a byte-level BPE model")
    merges = model["merges"]
    if max(vocabulary.values(), default=0) >= (1 << ID_BITS) - 1:
        raise UnsupportedError(f"ids of {(1 << ID_BITS) - 1} and more")
    if len(merges) >= NO_RANK:
        raise UnsupportedError(f"more than {(1 << RANK_BITS) - 2} merges")
    tables = _merge_tables(vocabulary, merges)
    known, seeds = _whole_pieces(vocabulary, tables, bool(model.get("ignore_merges")))
    return ByteLevelModel(
        rules=rules,
        tables=tables,
        known=known,
        seeds=seeds,
        prefix_space=prefix_space,
        normalizer=NfcNormalizer() if steps else None,
        cuts=cuts.find_rule(config),
    )


def _merge_tables(vocabulary: dict[str, int], merges: list[list[str]]) -> MergeTables:
    alphabet = byte_level_alphabet()
    byte_ids = np.full(256, -1, np.int32)
    for character, byte in alphabet.items():
        byte_ids[byte] = vocabulary.get(character, -1)
    left = np.array([vocabulary[a] for a, _ in merges], np.int32)
    right = np.array([vocabulary[b] for _, b in merges], np.int32)
    rank_ids = np.array([vocabulary[a + b] for a, b in merges] or [0], np.int32)
    ranks = np.arange(len(merges), dtype=np.int32)
    slots = np.full(_table_size(len(merges)), 0xFFFFFFFFFFFFFFFF, np.uint64)
    insert_pairs(slots, left, right, ranks)
    slots = as_readonly(slots, np.uint64)
    char_ids, char_ranks = np.empty(65536, np.int32), np.empty(65536, np.int32)
    measure_characters(byte_ids, slots, rank_ids, char_ids, char_ranks)
    risks = _risks(vocabulary, alphabet, left, right, ranks)
    _settle_characters(char_ids, char_ranks, risks, byte_ids, left, right, ranks)
    return MergeTables(
        byte_ids=as_readonly(byte_ids, np.int32),
        byte_pairs=as_readonly(_byte_pairs(byte_ids, left, right, ranks), np.int32),
        char_ids=as_readonly(char_ids, np.int32),
        char_ranks=as_readonly(char_ranks, np.int32),
        risk_before=as_readonly(risks[0], np.int32),
        risk_behind=as_readonly(risks[1], np.int32),
        slots=slots,
        rank_ids=as_readonly(rank_ids, np.int32),
    )


def _table_size(num_entries: int) -> int:
    """Return a power of two that entries fill to 0.65 at most."""
    return max(16, 1 << int(num_entries / 0.65).bit_length())


def _byte_pairs(
    byte_ids: NDArray[np.int32],
    left: NDArray[np.int32],
    right: NDArray[np.int32],
    ranks: NDArray[np.int32],
) -> NDArray[np.int32]:
    bytes_of = {int(i): byte for byte, i in enumerate(byte_ids.tolist()) if i >= 0}
    table = np.full(65536, NO_RANK, np.int32)
    known = list(bytes_of)
    for i in np.flatnonzero(np.isin(left, known) & np.isin(right, known)).tolist():
        table[bytes_of[int(left[i])] << 8 | bytes_of[int(right[i])]] = ranks[i]
    return table


def _risks(
    vocabulary: dict[str, int],
    alphabet: dict[str, int],
    left: NDArray[np.int32],
    right: NDArray[np.int32],
    ranks: NDArray[np.int32],
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return lowest ranks of merges that join part of a character to a neighbour; see merges.py."""
    size = max(vocabulary.values(), default=0) + 1
    first, last = np.zeros(size, np.int64), np.zeros(size, np.int64)
    begins, tail = np.zeros(size, bool), np.zeros(size, bool)
    for token, i in vocabulary.items():
        if not token or token[0] not in alphabet or token[-1] not in alphabet:
            continue
        first[i], last[i] = alphabet[token[0]], alphabet[token[-1]]
        if len(token) <= 2:
            codes = [alphabet.get(character, 0) for character in token]
            inner = [0x80 <= code < 0xC0 for code in codes]
            tail[i] = all(inner)
            lead = codes[0] >= 0xC0
            begins[i] = lead and (len(token) == 1 or (codes[0] >= 0xE0 and inner[1]))
    before, behind = np.full(65536, NO_RANK, np.int32), np.full(65536, NO_RANK, np.int32)
    joins = begins[right]
    np.minimum.at(before, (last[left] << 8 | first[right])[joins], ranks[joins])
    joins = tail[left]
    np.minimum.at(behind, (last[left] << 8 | first[right])[joins], ranks[joins])
    return before, behind


def _settle_characters(
    char_ids: NDArray[np.int32],
    char_ranks: NDArray[np.int32],
    risks: tuple[NDArray[np.int32], NDArray[np.int32]],
    byte_ids: NDArray[np.int32],
    left: NDArray[np.int32],
    right: NDArray[np.int32],
    ranks: NDArray[np.int32],
) -> None:
    """Take away characters that may not begin whole, and mark those that always may."""
    codes = np.flatnonzero(char_ids >= 0)
    used = np.full(
        max(int(char_ids.max()), int(left.max(initial=0)), int(right.max(initial=0))) + 1, NO_RANK
    )
    np.minimum.at(used, left, ranks)
    np.minimum.at(used, right, ranks)
    # A byte without a symbol is dropped: its neighbours meet, whatever bytes stand between.
    encodable = [*range(0xC0), *range(0xC2, 0xF5)]
    early = used[char_ids[codes]] < char_ranks[codes]
    char_ids[codes[early]] = -1
    if (byte_ids[encodable] < 0).any():
        char_ids[:] = -1
    codes = np.flatnonzero(char_ids >= 0)
    lead = np.where(codes < 0x800, 0xC0 | codes >> 6, 0xE0 | codes >> 12)
    final = 0x80 | (codes & 0x3F)
    possible_before = np.r_[0:0xC0]
    possible_behind = np.r_[0:0x80, 0xC0:0x100]
    lowest_before = risks[0].reshape(256, 256)[possible_before].min(axis=0)
    lowest_behind = risks[1].reshape(256, 256)[:, possible_behind].min(axis=1)
    always = (char_ranks[codes] < lowest_before[lead]) & (char_ranks[codes] < lowest_behind[final])
    char_ids[codes[always]] += ALWAYS


def _whole_pieces(
    vocabulary: dict[str, int], tables: MergeTables, ignore_merges: bool
) -> tuple[KnownPieces, tuple[Any, Any, Any]]:
    """Return the entries that `ignore_merges` alone gives, and those that are one id anyway."""
    alphabet = byte_level_alphabet()
    table = {ord(character): byte for character, byte in alphabet.items()}
    pieces = []
    for token, i in vocabulary.items():
        if token and alphabet.keys() >= set(token):
            pieces.append((token.translate(table).encode("latin-1"), i))
    pieces.sort(key=lambda piece: piece[1])  # frequent ones first
    data, offsets, ids = _pack(pieces)
    unmerged = np.zeros(len(ids), bool)
    longest = int(np.diff(offsets).max(initial=0))
    find_unmerged(data, offsets, ids, tables, new_scratch(longest + 2), unmerged)
    seeds = data, offsets, ids
    known = KnownPieces(np.zeros(0, np.uint64), np.zeros(16, np.int32))
    if ignore_merges:
        known = _known_pieces([pieces[i] for i in np.flatnonzero(unmerged).tolist()])
    else:
        seeds = _pack([pieces[i] for i in np.flatnonzero(~unmerged).tolist()])
    return known, seeds


def _pack(pieces: list[tuple[bytes, int]]) -> tuple[Any, Any, Any]:
    data = np.frombuffer(b"".join(piece for piece, _ in pieces) + bytes(SLACK), np.uint8)
    offsets = np.cumsum([0, *(len(piece) for piece, _ in pieces)], dtype=np.int64)
    ids = np.array([i for _, i in pieces], np.int32)
    return as_readonly(data, np.uint8), offsets, ids


def _known_pieces(chosen: list[tuple[bytes, int]]) -> KnownPieces:
    """Return a hash table of pieces and their ids."""
    if not chosen:
        return KnownPieces(np.zeros(0, np.uint64), np.zeros(16, np.int32))
    masks = new_memo(2, 2, 16).masks
    slots = np.zeros(2 << int(2 * len(chosen)).bit_length(), np.uint64)
    mask = len(slots) // 2 - 1
    arena: list[int] = []
    for piece, i in chosen:
        padded = np.frombuffer(piece + bytes(SLACK), np.uint8)
        wanted = int(hash_bytes(as_readonly(padded, np.uint8), 0, len(piece), masks))
        at = (wanted >> 8) & mask
        while slots[2 * at]:
            at = (at + 1) & mask
        slots[2 * at], slots[2 * at + 1] = wanted, len(arena) | len(piece) << 32
        words = np.frombuffer(piece.ljust(-len(piece) // 8 * -8, b"\0"), np.int32)
        arena += [*words.tolist(), i]
    return KnownPieces(slots, np.array([*arena, *[0] * 16], np.int32))
