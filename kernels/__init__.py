"""Arrays flow in, arrays flow out: the loops that everything above stands on, compiled by numba.

`PUBLIC_KERNELS` lists them all with the module that holds each. Every one has a slow, readable twin
of the same name in `kernels.reference` and a property test that compares the two. Documents come
in as `(data: uint8[num_bytes], offsets: int64[num_documents + 1])`.

Importing this package imports neither numba nor numpy; a kernel's module is loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

PUBLIC_KERNELS = {  # no module may be named like a kernel, or it would hide it
    "find_json_strings": "json_lines",
    "unescape_json": "json_escapes",
    "surround_documents": "surrounding",
    "hash_documents": "hashing",
    "band_keys": "minhash",
    "shingle_lists": "distinct",
    "shingle_sets": "payload",
    "source_shingles": "payload",
    "set_jaccard": "similarity",
    "verify_group": "verification",
    "join_buckets": "components",
    "resolve_components": "components",
    "text_statistics": "document_statistics",
    "text_windows": "token_spans",
    "find_windows": "window_search",
    "winnow": "winnowing",
    "permute": "permutation",
    "pack_best_fit": "packing",
    "mask_tokens": "masking",
    "build_sample_index": "megatron",
    "blend_greedily": "megatron",
    "scan_pieces": "tokenizer.pieces",
    "normalize_nfc": "tokenizer.nfc",
    "merge_pieces": "tokenizer.piece_merges",
    "encode_sentencepiece": "tokenizer.sentencepiece",
    "encode_wordpiece": "tokenizer.wordpiece",
    "encode_unigram": "tokenizer.unigram",
    "normalize_charsmap": "tokenizer.charsmap",
    "apply_text_rule": "tokenizer.text_rules",
}
"""Name of each public kernel -> the module of this package, and of `reference`, that holds it."""

__all__ = ["PUBLIC_KERNELS", "warm_kernels", *PUBLIC_KERNELS]


def __getattr__(name: str) -> Any:
    module = PUBLIC_KERNELS.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{module}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def warm_kernels(which: str = "all") -> None:
    """Compile, or load from the cache, every kernel once, or those of one part of the pipeline.

    Call it before worker processes start: they then load what the parent compiled, and do not all
    compile the same code at the same time.

    Args:
        which: "all"; "dedup", "passages"; or one kind of tokenizer, of which the largest kernel is
            compiled: "byte_level", "sentencepiece", "wordpiece", "unigram".
    """
    warm = import_module(".warm", __name__)
    parts = {
        "all": warm.compile_all,
        "dedup": warm.compile_dedup,
        "passages": warm.compile_passages,
    }
    (parts | warm.ENCODERS)[which]()
