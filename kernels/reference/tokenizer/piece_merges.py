"""Byte-pair merges by the definition (Sennrich et al. 2016): a loop over a list of symbols."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...tokenizer.merges import ID_BITS, RANK_BITS, MergeTables


def merge_pieces(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], tables: MergeTables
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Encode pieces; of `tables` the symbols of bytes and the ranks of pairs are used."""
    ranks = {}
    for slot in tables.slots.tolist():
        if slot != (1 << 64) - 1:
            pair = slot >> RANK_BITS
            ranks[pair >> ID_BITS, pair & ((1 << ID_BITS) - 1)] = slot & ((1 << RANK_BITS) - 1)
    ids: list[int] = []
    id_offsets = [0]
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        symbols = [int(tables.byte_ids[byte]) for byte in data[start:end].tolist()]
        symbols = [symbol for symbol in symbols if symbol >= 0]
        while True:
            found = [(ranks[p], i) for i, p in enumerate(zip(symbols, symbols[1:])) if p in ranks]
            if not found:
                break
            rank, place = min(found)
            symbols[place : place + 2] = [int(tables.rank_ids[rank])]
        ids += symbols
        id_offsets.append(len(ids))
    return np.array(ids, np.int32), np.array(id_offsets, np.int64)
