"""Every kernel is called once on a few bytes: compiled code in the cache flows out."""

from __future__ import annotations

import numpy as np

from .components import resolve_components, unite_edges
from .distinct import shingle_sets
from .hashing import hash_documents
from .megatron import blend_greedily, build_sample_index
from .minhash import band_keys
from .permutation import NUM_KEYS, permute
from .similarity import set_jaccard
from .verification import verify_group
from .winnowing import winnow


def compile_all() -> None:
    """Call each public kernel with the argument types that it is used with."""
    data = np.frombuffer(b"warm kernels", np.uint8)
    offsets = np.array([0, len(data)], np.int64)
    hash_documents(data, offsets)
    keys = band_keys(data, offsets)
    values, set_offsets, shifts = shingle_sets(data, offsets)
    set_jaccard(values, values)
    verify_group(values, set_offsets, shifts, keys, 0.8)
    parents = np.arange(1, dtype=np.int64)
    unite_edges(parents, parents[:0], parents[:0])
    resolve_components(parents)
    build_sample_index(np.ones(1, np.int32), np.zeros(1, np.int32), 1, 1)
    blend_greedily(np.ones(1), np.ones(1, np.int64), np.zeros(1, np.int64), 0, 1)
    winnow(data, offsets, 4, 4)
    permute(parents, 1, np.arange(NUM_KEYS, dtype=np.uint64))
