"""Settings that make no sense are refused here: a configuration in, an error or nothing out.

All of it is looked at before the first file is read, so that a wrong share for validation is not
found after hours of cleaning. Sources are checked in sources.py, where they are found.
"""

from __future__ import annotations

import math
from typing import Any

from .cleaner import check_texts
from .config import PreprocessConfig, RehydrationConfig, TokenizerConfig
from .contamination import check_decontamination
from .dedup_preference import columns_of, parse_keep
from .filter_thresholds import check_filters
from .tokenizer import open_cached
from .train_tokenizer import SMALLEST_VOCAB_SIZE

MAX_HASHES = 10_000
"""Hash values a document: above that a signature costs more than comparing the texts."""

MAX_PARTITIONS = 65_536


def check_config(config: PreprocessConfig) -> None:
    """Raise ValueError for the first setting that cannot be meant; it names the setting."""
    clean, pack = config.clean, config.pack
    _at_least("clean.min_characters", clean.min_characters, 0, "0: only empty texts are dropped")
    _at_least("clean.max_bytes", clean.max_bytes, 0, "0: no limit")
    _at_least("clean.unit_bytes", clean.unit_bytes, 1, "64000000 is usual")
    check_texts(config)
    check_filters(config.filters)
    check_decontamination(config.filters.decontamination)
    check_dedup(config)
    passages = config.passages
    _at_least("passages.max_documents", passages.max_documents, 1, "10 is usual")
    _at_least("passages.min_bytes", passages.min_bytes, 0, "20 is usual; 0: any length")
    _at_least("passages.span_bytes", passages.span_bytes, 50, "500 is usual")
    _check_rehydration(config.rehydration)
    _check_training(config.tokenizer)
    if len(set(pack.group_by)) < len(pack.group_by):
        raise ValueError(
            f"pack.group_by is {', '.join(pack.group_by)}: it must name each of language and "
            "source once at most"
        )
    _at_least("pack.min_documents", pack.min_documents, 0, "0: no group is put into `other`")
    _at_least("pack.max_shard_tokens", pack.max_shard_tokens, 1, "250000000 is usual")
    if not 0 <= pack.validation_fraction < 1:
        raise ValueError(
            f"pack.validation_fraction is {pack.validation_fraction}: it is the share of "
            "documents held out, so it must be at least 0 and below 1 (0.01 is usual)"
        )
    _at_least("pack.validation_max_tokens", pack.validation_max_tokens, 0, "2000000 is usual")


def check_dedup(config: PreprocessConfig) -> None:
    """Raise ValueError for a setting of dedup that cannot be meant."""
    dedup = config.dedup
    if not 0.0 < dedup.threshold <= 1.0:
        raise ValueError(
            f"dedup.threshold is {dedup.threshold}: it is a Jaccard similarity, so it must be "
            "above 0 and at most 1 (0.8 is usual)"
        )
    _at_least("dedup.num_bands", dedup.num_bands, 1, "20 is usual; dedup.near = false: none")
    _at_least("dedup.rows_per_band", dedup.rows_per_band, 1, "6 is usual")
    if dedup.num_bands * dedup.rows_per_band > MAX_HASHES:
        raise ValueError(
            f"dedup.num_bands x dedup.rows_per_band is {dedup.num_bands} x {dedup.rows_per_band}: "
            f"a signature has at most {MAX_HASHES} hash values (20 x 6 is usual)"
        )
    _at_least("dedup.partitions", dedup.partitions, 0, "0: by the number of candidates")
    if dedup.partitions > MAX_PARTITIONS:
        raise ValueError(
            f"dedup.partitions is {dedup.partitions}: it must be at most {MAX_PARTITIONS}, each "
            "is a unit of work (0 is usual: by the number of candidates)"
        )
    _at_least("dedup.boilerplate_documents", dedup.boilerplate_documents, 0, "0: no boilerplate")
    if dedup.boilerplate_documents == 1:
        raise ValueError(
            "dedup.boilerplate_documents is 1: every shingle would be boilerplate. Use 2 or more "
            "(20 is usual), or 0 to look for none"
        )
    if not 0.0 <= dedup.payload_overlap <= 1.0:
        raise ValueError(
            f"dedup.payload_overlap is {dedup.payload_overlap}: it is a share, so it must be from "
            "0 to 1 (0.5 is usual)"
        )
    for column in columns_of(parse_keep(dedup.keep)):
        for source in config.sources:
            if column not in source.columns:
                raise ValueError(
                    f"dedup.keep looks at the column {column!r}, which source "
                    f"{source.name or source.path!r} does not carry: add it to the source's "
                    "`columns`"
                )
    if not (dedup.exact or dedup.near) and (dedup.against or dedup.write_index):
        raise ValueError(
            "dedup.against and dedup.write_index need dedup.exact or dedup.near, which are both "
            "false: set one of them, or leave the index out"
        )
    if not dedup.among_new and not dedup.against:
        raise ValueError(
            "dedup.among_new is false and dedup.against is empty: there would be nothing to "
            "compare with. Name the output folder of an earlier run in dedup.against"
        )


def open_given_tokenizer(config: TokenizerConfig) -> None:
    """Open the tokenizer that is to be used, if one is given; it stays open for the stages.

    Raises:
        TokenizerError: there is none, it is damaged, or no token of it is known to end a document.
    """
    for path in config.reference_tokenizers:
        open_cached(path, "")
    if config.path:
        _ = open_cached(config.path, config.eod).eod_id


def _check_rehydration(config: RehydrationConfig) -> None:
    sizes = [size for size, _ in config.schedule]
    if not sizes or sizes[0] != 1 or sizes != sorted(set(sizes)):
        raise ValueError(
            f"rehydration.schedule has the cluster sizes {sizes}: they must begin with 1 and "
            "ascend ([[1, 1], [2, 2], [100, 8], [1000, 1]], say)"
        )
    for _, repeats in config.schedule:
        _at_least("a repetition in rehydration.schedule", repeats, 1, "1: as often as others")
    _at_least("rehydration.max_repeats", config.max_repeats, 1, "10 is usual")
    _at_least("rehydration.min_documents", config.min_documents, 1, "100 is usual")


def _check_training(config: TokenizerConfig) -> None:
    if config.path:
        return  # the settings of training do not count
    if config.vocab_size < SMALLEST_VOCAB_SIZE:
        raise ValueError(
            f"tokenizer.vocab_size is {config.vocab_size}: a byte-level tokenizer needs an id for "
            f"each of the 256 bytes and for {SMALLEST_VOCAB_SIZE - 256} special tokens, so at "
            f"least {SMALLEST_VOCAB_SIZE}"
        )
    _at_least("tokenizer.train_bytes", config.train_bytes, 1, "20000000 is usual")
    _at_least("tokenizer.min_frequency", config.min_frequency, 1, "2 is usual")


def _at_least(name: str, value: Any, smallest: int, note: str) -> None:
    if math.isnan(value) or value < smallest:
        raise ValueError(f"{name} is {value}: it must be {smallest} or more ({note})")
