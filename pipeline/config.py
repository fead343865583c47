"""What a user can set about preprocessing: plain typed values in, nothing done here.

One frozen dataclass a stage, in the order of the flow. The string under each field is its
documentation: `gristmill preprocess --help` and `gristmill init` print it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


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
    """Field or column that holds the text."""
    id_key: str = "id"
    """Field or column that holds the input's own id; a document without it has none."""
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
    strip: bool = True
    """Strip white space at both ends of the document and trailing spaces of each line."""
    min_characters: int = 1
    """Shorter documents are dropped as `too_short` (empty ones always, as `empty`)."""
    max_bytes: int = 0
    """Longer documents (UTF-8 bytes) are dropped as `too_long`; 0: no limit."""
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

    sources: tuple[SourceConfig, ...] = ()
    """Where documents come from: `[[preprocess.sources]]`, one table each."""
    clean: CleanConfig = field(default_factory=CleanConfig)
    """Normalization and length limits."""
    dedup: DedupConfig = field(default_factory=DedupConfig)
    """Exact and near-duplicate removal."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """Tokenizer, given or trained."""
    pack: PackConfig = field(default_factory=PackConfig)
    """Grouping, validation, shards."""
