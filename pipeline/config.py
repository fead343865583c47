"""What a user can set about preprocessing: plain typed values in, nothing done here.

One frozen dataclass a stage, in the order of the flow. The string under each field is its
documentation: `gristmill preprocess --help` and `gristmill init` print it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .chat_config import ChatConfig, TaskConfig
from .filter_config import FilterConfig
from .text_config import AnnotationConfig, IdentificationConfig, RedactionConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceConfig:
    """One collection of documents: where it lies and what its fields mean."""

    path: str | tuple[str, ...]
    """File, folder, glob, or a list of them; with format = "huggingface" a hub id or a local data
    set folder. A `{language}` in the path matches one path component and gives the language."""
    name: str = ""
    """Name of the source in reports and manifests; empty: derived from the path."""
    format: Literal["auto", "jsonl", "parquet", "arrow", "text", "huggingface"] = "auto"
    """auto: by file name (.jsonl .json .ndjson, also .gz .zst; .parquet; .arrow .feather;
    .txt .md, also .gz .zst)."""
    text_key: str = "text"
    """Field or column that holds the text; `*`: the whole row, as JSON."""
    id_key: str = "id"
    """Field or column that holds the input's own id; a document without it has none."""
    task: TaskConfig = field(default_factory=TaskConfig)
    """How rows become prompts and completions, where `preprocess.kind` is chat or pairs."""
    language: str = ""
    """Language of every document of this source, in any notation (en, eng, eng_Latn, zh-Hant)."""
    language_keys: tuple[str, ...] = ("language", "lang")
    """Fields or columns tried in turn for a document's language, when `language` is empty."""
    columns: tuple[str, ...] = ()
    """Input columns to carry through to the clean documents (url, date, licence, ...)."""
    licence: str = ""
    """Licence of all its documents, for the data card; empty: that of a carried `licence` or
    `license` column, else unknown."""
    priority: int = 0
    """Of two equal documents the one from the source with the lower number is kept."""
    text_unit: Literal["file", "paragraph", "line"] = "file"
    """What one document is in a plain text file (paragraphs are separated by empty lines)."""
    subset: str = ""
    """huggingface: configuration name of the data set (for FineWeb2 the language, `swh_Latn`)."""
    split: str = "train"
    """huggingface: split of the data set."""
    revision: str = ""
    """huggingface: commit or tag of the data set; empty: the newest."""
    streaming: bool = True
    """huggingface: read a hub data set as a stream instead of downloading it first."""
    max_documents: int = 0
    """huggingface: stop after so many documents of a stream; 0: no limit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CleanConfig:
    """How a text is normalized, and which texts are not kept."""

    unicode_form: Literal["NFC", "none"] = "NFC"
    """Unicode normalization form; none leaves code points as they are."""
    newlines: bool = True
    """Turn CR LF, CR, NEL, LS and PS into LF."""
    control_characters: Literal["remove", "keep"] = "remove"
    """Remove control characters (Cc, except tab and LF), byte order marks and noncharacters."""
    mojibake: bool = False
    """Repair text that was decoded with the wrong code page (by the library ftfy)."""
    strip: bool = True
    """Strip white space at both ends of the document and trailing spaces of each line."""
    min_characters: int = 1
    """Shorter documents are dropped as `too_short` (empty ones always, as `empty`)."""
    max_bytes: int = 0
    """Longer documents (UTF-8 bytes) are dropped as `too_long`; 0: no limit."""
    c4_lines: Literal["keep", "drop", "any_ending"] = "keep"
    """drop: remove the lines that C4 removes, which changes texts (English rules); any_ending: let
    lines without a final mark stay."""
    language: IdentificationConfig = field(default_factory=IdentificationConfig)
    """Identification of languages."""
    redaction: RedactionConfig = field(default_factory=RedactionConfig)
    """Replacement of personal data."""
    annotate: AnnotationConfig = field(default_factory=AnnotationConfig)
    """Columns that are added."""
    unit_bytes: int = 64_000_000
    """Size of one work unit of a plain JSONL or Parquet file; compressed files are one unit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DedupConfig:
    """Which documents count as copies of others."""

    exact: bool = True
    """Drop documents whose clean text is equal to that of an earlier one."""
    near: bool = True
    """Drop documents that are nearly equal to a kept one (MinHash-LSH, then verified)."""
    threshold: float = 0.8
    """Exact Jaccard similarity of the shingle sets from which on a document is a near copy."""
    num_bands: int = 20
    """Bands of the MinHash signature; two documents are compared when they share one."""
    rows_per_band: int = 6
    """Hash values a band; 20 x 6 finds 99.8 % of the pairs at Jaccard 0.8."""
    verify: bool = True
    """Compare candidates; false: sharing a band with a kept document is enough to be removed."""
    boilerplate_documents: int = 20
    """A shingle that so many candidates of a source have is boilerplate there; 0: none is."""
    payload_overlap: float = 0.5
    """A document whose text apart from boilerplate, where there is a passage of it (11 words or
    more), is found in the kept one to a smaller share is not removed: another page of the same
    template."""
    keep: tuple[str, ...] = ("longest",)
    """Which copy is kept; of several keys the first that differs decides: longest, shortest,
    first, priority (of the source), COLUMN:highest or COLUMN:lowest of a carried column. Ties go
    to the earlier one (source priority, file, offset)."""
    copies: Literal["keep_one", "drop_all"] = "keep_one"
    """drop_all: drop every document that has a copy, not all but one."""
    scope: Literal["global", "language", "source"] = "global"
    """Where copies are looked for: everywhere, or only in the same language or source."""
    against: tuple[str, ...] = ()
    """Output folders of earlier runs with write_index: their kept documents stay, and new ones
    that are copies of them are dropped, with the old one's id as `duplicate_of`."""
    among_new: bool = True
    """false: look for copies of the documents in `against` only."""
    write_index: bool = False
    """Write what a later run needs to dedup against this one (200 bytes a kept document)."""
    seed: int = 0
    """Key of the hash functions."""
    partitions: int = 0
    """Parts that candidates are verified in; 0: by their number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PassagesConfig:
    """Text that documents repeat of each other, left out of what is tokenized."""

    lines: Literal["off", "keep_first", "drop"] = "off"
    """Lines that more than `max_documents` documents of a source have: all but the first of them
    go, or all."""
    paragraphs: Literal["off", "keep_first", "drop"] = "off"
    """The same of paragraphs, which empty lines separate."""
    max_documents: int = 10
    """Documents of a source that may have a line or paragraph before it is a template's."""
    min_bytes: int = 20
    """Shorter lines and paragraphs stay (UTF-8 bytes): `}` and "Yes." repeat by themselves."""
    spans: Literal["off", "keep_first"] = "off"
    """Passages of `span_bytes` or more that stand in an earlier document, of any source, to the
    byte: one copy stays."""
    span_bytes: int = 500
    """Length from which on such a passage is always found; at least 4/5 of it repeat."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RehydrationConfig:
    """How often the training draws a document that had copies: found often, it is worth more."""

    mode: Literal["off", "schedule", "filters"] = "off"
    """off: each document once. schedule: as often as `schedule` says of the size of its duplicate
    cluster. filters: learned for each language from what the filters think of documents by the
    size of their cluster (as in FineWeb2)."""
    schedule: tuple[tuple[int, int], ...] = ((1, 1), (2, 2), (3, 3), (5, 5), (100, 8), (1000, 1))
    """Pairs of a cluster size and the repetitions from that size on, sizes ascending from 1."""
    filter_column: str = ""
    """filters: column of documents/ that is filled (or true) where a document is to be removed;
    empty: what fails a rule of filters in mode `annotate`, or was dropped after dedup, counts."""
    max_repeats: int = 10
    """filters: repetitions of the cluster size that the filters remove least of."""
    min_documents: int = 100
    """filters: neighbouring cluster sizes are looked at together until they have so many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerConfig:
    """Which tokenizer turns text into ids, or how one is trained on the corpus."""

    path: str = ""
    """A tokenizer.json, a folder that holds one, or a hub id; empty: train one."""
    eod: str = ""
    """Token that ends each document; empty: the tokenizer's own end-of-text token."""
    vocab_size: int = 16_384
    """Training: number of ids, special tokens included."""
    train_bytes: int = 20_000_000
    """Training: bytes of text to learn from, spread evenly over the languages."""
    min_frequency: int = 2
    """Training: a pair seen less often is not merged."""
    reference_tokenizers: tuple[str, ...] = ()
    """Other tokenizers (as for `path`) whose tokens per byte and word are reported beside ours."""
    special_strings: Literal["as_tokens", "as_text"] = "as_tokens"
    """What becomes of a special token that a text spells out: its id, as in `tokenizers` (they are
    counted in the report of the stage), or ids of its characters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PackConfig:
    """How token ids are laid out in indexed datasets."""

    group_by: tuple[Literal["language", "source"], ...] = ("language",)
    """What one dataset holds: documents of one language, one source, both, or () everything."""
    min_documents: int = 20
    """Groups with fewer documents share one dataset named `other`."""
    max_shard_tokens: int = 250_000_000
    """A larger group is written as several numbered shards."""
    validation_fraction: float = 0.05
    """Share of each group's documents held out for validation, chosen by keyed hash; 0: none."""
    validation_max_tokens: int = 2_000_000
    """Tokens a group at most for validation: the share is halved until it fits, so that no
    document that was trained on is ever moved to validation when data is added."""
    seed: int = 0
    """Key of the hash that places documents."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreprocessConfig:
    """From sources to indexed datasets: read, clean, dedup, tokenize, pack."""

    kind: Literal["text", "chat", "pairs"] = "text"
    """text: to pretrain on. chat, pairs: to fine-tune on, rendered with a chat template, with a
    loss mask; rows are conversations (chat), or fields that make a prompt and its completion
    (pairs; in chat those of sources with a `task`). Near duplicates are not looked for in these:
    short conversations with the same prompt look alike. Equal ones are removed."""
    sources: tuple[SourceConfig, ...] = ()
    """Where documents come from: `[[preprocess.sources]]`, one table each."""
    chat: ChatConfig = field(default_factory=ChatConfig)
    """Conversations, where `kind` is chat or pairs."""
    clean: CleanConfig = field(default_factory=CleanConfig)
    """Normalization and length limits."""
    filters: FilterConfig = field(default_factory=FilterConfig)
    """Which documents are kept, by rules over their columns."""
    dedup: DedupConfig = field(default_factory=DedupConfig)
    """Exact and near-duplicate removal."""
    passages: PassagesConfig = field(default_factory=PassagesConfig)
    """Repeated lines, paragraphs and long spans."""
    rehydration: RehydrationConfig = field(default_factory=RehydrationConfig)
    """Repetition of documents by the size of their duplicate cluster."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """Tokenizer, given or trained."""
    pack: PackConfig = field(default_factory=PackConfig)
    """Grouping, validation, shards."""
