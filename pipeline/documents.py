"""What a document is on its way: the Arrow schemas and the words for why one was dropped.

Flows through here: nothing; every stage imports its column names and reasons from this page.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

UNKNOWN_LANGUAGE = "und_Zyyy"
"""Language of a document whose input says none (ISO 639-3 undetermined, script undetermined)."""

REASONS: dict[str, str] = {
    "rejected_json": "the line is not a JSON object",
    "rejected_utf8": "the line is not valid UTF-8, or its text holds lone surrogates",
    "rejected_truncated": "the compressed file ends in the middle of this document, or is damaged",
    "missing_text": "the text key or column is missing, null or not a string",
    "empty": "no text is left after cleaning",
    "too_short": "shorter than clean.min_characters",
    "too_long": "longer than clean.max_bytes or chat.max_tokens, or than this tokenizer can encode",
    "broken_roles": "its turns are no conversation: a role is unknown or out of turn",
    "empty_turn": "a turn, a prompt or a completion says nothing",
    "missing_field": "a field that the task's template names is missing or null",
    "unknown_language_pair": "a language that the prompt names is not known",
    "other_language_pair": "its languages are not one of the task's language_pairs",
    "template_fails": "the chat template fails on it, or refuses it",
    "unstable_template": "the chat template changes earlier turns when later ones follow",
    "no_target": "the chat template leaves nothing that the assistant generates",
    "other_language": "its language is not one of filters.keep_languages",
    "language_mismatch": "the language that its input says is not the identified one",
    "language_score": "its language was identified with less than filters.min_language_score",
    "url_blocked": "its URL is on filters.url_block_list",
    "gopher_quality": "it fails a rule of filters.gopher_quality",
    "gopher_repetition": "it fails a rule of filters.gopher_repetition",
    "c4": "it fails a rule of filters.c4",
    "fineweb": "it fails a rule of filters.fineweb",
    "low_score": "a score is below its limit in filters.scores",
    "contaminated": "it holds evaluation data (filters.decontamination)",
    "exact_duplicate": "the clean text is equal to that of a kept document",
    "has_duplicates": "other documents are copies of it, and dedup.copies is drop_all",
    "near_duplicate": "the verified similarity to a kept document reaches dedup.threshold",
    "repeated_passages": "all of its text is cut: it repeats others, or is evaluation data",
}
"""Every reason that a document can be dropped for, with what it means."""

DOCUMENT_FIELDS: list[pa.Field] = [
    pa.field("id", pa.binary(16), nullable=False),  # 128-bit hash of the text as read
    pa.field("input_id", pa.string()),  # the input's own, or null
    pa.field("text", pa.large_string(), nullable=False),  # clean text
    pa.field("language", pa.string(), nullable=False),  # eng_Latn
    pa.field("source", pa.string(), nullable=False),
    pa.field("origin_file", pa.string(), nullable=False),  # relative to the source's root
    pa.field("origin_offset", pa.int64(), nullable=False),  # row, or byte offset of the line
]

VERDICT_SCHEMA = pa.schema(
    [
        pa.field("id", pa.binary(16)),  # null where no text could be read
        pa.field("input_id", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("origin_file", pa.string(), nullable=False),
        pa.field("origin_offset", pa.int64(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("kept", pa.bool_(), nullable=False),
        pa.field("reason", pa.string()),  # a key of REASONS; null when kept
        pa.field("cluster_id", pa.binary(16)),  # id of the document that leads the cluster
        pa.field("cluster_size", pa.int64(), nullable=False),  # 1 for a document of its own
        pa.field("duplicate_of", pa.binary(16)),  # id of the document it is a copy of
        pa.field("jaccard", pa.float64()),  # similarity to it; exact up to 131,072 shingles
        pa.field("text_bytes", pa.int64(), nullable=False),  # of the clean text
    ]
)

ROW_GROUP_TEXT_BYTES = 16_000_000
"""Text bytes in one batch and one Parquet row group: what bounds a worker's memory."""


def document_schema(columns: Sequence[str] = ()) -> pa.Schema:
    """Return the schema of clean documents; carried columns are strings (JSON unless a string)."""
    return pa.schema([*DOCUMENT_FIELDS, *(pa.field(name, pa.string()) for name in columns)])
