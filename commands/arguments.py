"""What each command can be told: one dataclass a command, which tyro turns into options and help.

The first line of a class is its line in `gristmill --help`; the string under a field is its help.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from ..config import RunConfig
from ..pipeline.config import CleanConfig, DedupConfig, PreprocessConfig

if TYPE_CHECKING:
    from tyro.conf import Positional, arg
else:
    try:
        from tyro.conf import Positional, arg
    except ImportError:
        sys.exit(
            "gristmill: the command line needs more than the base install, which only reads "
            "datasets: pip install 'gristmill[pipeline]', 'gristmill[trainer]' or 'gristmill[all]'"
        )


@dataclass(frozen=True, kw_only=True)
class PreprocessArguments:
    """Text in, memory-mapped token files out: read, clean, dedup, tokenize, pack.

    INPUTS are files, folders or globs (.jsonl, .parquet, .arrow, .txt, also .gz and .zst), or one
    config file (.toml). Run the same command again after an interruption: it goes on.
    """

    inputs: Positional[tuple[str, ...]] = ()
    """Files, folders, globs; or one config file."""
    run: Annotated[RunConfig, arg(name="")] = field(default_factory=RunConfig)
    plan: bool = False
    """Say what would be done, with the time, memory and disk of each stage, and do nothing; exit
    status 1 if it cannot fit here."""
    until: Literal["clean", "filters", "dedup", "tokenizer", "tokenize", "pack"] = "pack"
    """Stop after this stage."""
    write_kept: bool = False
    """Write the kept documents as Parquet to OUTPUT/kept too, without the passages that are cut."""
    shard: str = ""
    """NUMBER/COUNT: do only this piece's units of each stage, as one of COUNT calls, from 0/COUNT
    on, that share the output folder (job arrays; docs/scaling.md)."""
    wait: float = 0.0
    """Minutes that a piece waits for the others between stages, before it ends (exit status 75)."""
    config: Annotated[PreprocessConfig, arg(name="")] = field(default_factory=PreprocessConfig)


@dataclass(frozen=True, kw_only=True)
class StatusArguments:
    """What a preprocess run has done, is doing, and what failed and why.

    Exit status: 0 finished or at work, 1 stopped, failed or killed, 3 finished without some units.
    """

    run: Positional[str]
    """Output folder of `gristmill preprocess`."""
    watch: bool = False
    """Show it again every two seconds until the run ends."""


@dataclass(frozen=True, kw_only=True)
class TokenizeArguments:
    """Text straight to PREFIX.bin and PREFIX.idx, in input order.

    Nothing is cleaned or dropped: the counterpart of Megatron's preprocess_data.py.
    """

    inputs: Positional[tuple[str, ...]]
    """Files, folders, globs (.jsonl, .parquet, .txt, also .gz and .zst)."""
    tokenizer: str
    """A tokenizer.json, a folder that holds one, or a hub id."""
    output: str
    """Prefix of the files to write: PREFIX.bin, PREFIX.idx, PREFIX.json."""
    json_keys: tuple[str, ...] = ("text",)
    """Fields to tokenize; several write PREFIX_KEY each."""
    append_eod: bool = False
    """End each document with the end-of-document token."""
    eod: str = ""
    """That token; empty: the tokenizer's own end-of-text token."""
    prepend_bos: bool = False
    """Begin each document with the beginning-of-text token."""
    bos: str = ""
    """That token; empty: the tokenizer's own."""
    add_special_tokens: bool = False
    """Put around each document what the tokenizer's post-processor puts there, as Megatron's
    preprocess_data.py does unless it is given --tokenizer-hf-no-include-special-tokens."""
    special_strings: Literal["as_tokens", "as_text"] = "as_tokens"
    """What becomes of a special token that a text spells out: its id (they are counted), or ids
    of its characters."""
    workers: int = 0
    """Threads that encode; 0: one for each usable CPU."""
    overwrite: bool = False
    """Replace a prefix that exists already."""


@dataclass(frozen=True, kw_only=True)
class DedupArguments:
    """Remove copies and near-copies from any files of texts, and say what became of each one.

    Writes OUTPUT/kept (the documents that stay), OUTPUT/verdicts (one row for every document, with
    the copy that is kept instead and the similarity to it) and OUTPUT/report.json. Run the same
    command again after an interruption: it goes on.
    """

    inputs: Positional[tuple[str, ...]]
    """Files, folders, globs (.jsonl, .parquet, .arrow, .txt, also .gz and .zst); each folder is a
    source of its own."""
    output: str
    """Folder for everything that is written."""
    text_key: str = "text"
    """Field or column that holds the text."""
    id_key: str = "id"
    """Field or column that holds the input's own id."""
    language: str = ""
    """Language of all documents; empty: from their fields `language` or `lang`."""
    columns: tuple[str, ...] = ()
    """Input columns to carry through to the kept documents (url, date, scores, ...)."""
    workers: int = 0
    """Worker processes; 0: one for each usable CPU."""
    check_space: bool = True
    """Refuse to begin what needs more disk or memory than there is, by an estimate."""
    dedup: Annotated[DedupConfig, arg(name="")] = field(default_factory=DedupConfig)
    clean: CleanConfig = field(default_factory=CleanConfig)
    """Normalization and length limits before texts are compared."""


@dataclass(frozen=True, kw_only=True)
class StopWordsArguments:
    """Print the commonest words of each language, for the rule gopher_quality.min_stop_words.

    Give it text that you trust (an encyclopaedia, say), and put what it prints into the config.
    """

    inputs: Positional[tuple[str, ...]]
    """Files, folders, globs (.jsonl, .parquet, .arrow, .txt, also .gz and .zst)."""
    text_key: str = "text"
    """Field or column that holds the text."""
    language: str = ""
    """Language of all documents; empty: from their fields `language` or `lang`, or the path."""
    share: float = 0.008
    """Share of all words that a word must make up."""
    least: int = 8
    """Words of each language, whatever they make up."""
    most: int = 32
    """Words of each language at most (63 are possible)."""
    clean: CleanConfig = field(default_factory=CleanConfig)
    """Form of the texts, and identification of their languages."""


@dataclass(frozen=True, kw_only=True)
class ReportArguments:
    """Make the report page and the data card of a run again.

    `gristmill preprocess` makes them at its end; this is for a run of an older version.
    """

    run: Positional[str]
    """The output folder of a run."""
    workers: int = 0
    """Worker processes; 0: one for each usable CPU."""


@dataclass(frozen=True, kw_only=True)
class InspectArguments:
    """Say what lies at PATH.

    A prefix, a data or output folder, documents, a tokenizer, a checkpoint, a config file. The
    options ask about the training that draws from a config file, output folder or data folder.
    """

    path: Positional[str]
    """What to look at."""
    plan: bool = False
    """Tokens, samples, epochs and repeats of each language and source that the training draws."""
    num_samples: int = 0
    """With --plan: as many samples; 0: those of the training (of a data folder: one epoch)."""
    sample: int = -1
    """The documents of this sample of the training, counted from 0: origins and text."""
    step: int = -1
    """The same for all samples of this step, counted from 0."""
    document: int = -1
    """Of a prefix: this document, counted from 0, with its origin and text."""
    megatron: Literal["", "data-args", "per-split"] = ""
    """The blend for Megatron: lines of a weight and a prefix (for --data-args-path, or
    --data-path), or the JSON of --per-split-data-args-path."""
    phase: int = 1
    """With --megatron: the phase whose weights are taken."""


@dataclass(frozen=True, kw_only=True)
class MergeArguments:
    """Put prefixes together into one, or rewrite one without some of its documents.

    Nothing else of the inputs changes; OUTPUT appears whole or not at all.
    """

    inputs: Positional[tuple[str, ...]]
    """Prefixes, in the order that their documents shall have."""
    output: str
    """Prefix to write; with --overwrite it may be one of the inputs."""
    drop_ids: str = ""
    """File that names documents to leave out, one a line: a document id (32 hex digits), an id of
    the input, or an origin file, a tab and a row or byte offset."""
    verdicts: tuple[str, ...] = ()
    """Folders `verdicts` of the runs that wrote the inputs, where ids are looked up; empty: those
    beside the inputs."""
    allow_missing_ids: bool = False
    """Go on when a document to leave out is in none of the inputs."""
    overwrite: bool = False
    """Replace a prefix that exists already."""


@dataclass(frozen=True, kw_only=True)
class SplitArguments:
    """Cut a prefix into several, between documents and in their order."""

    prefix: Positional[str]
    """The prefix to cut; it stays as it is."""
    output: str
    """What the new names start with."""
    num_shards: int = 0
    """Write this many, of about equal numbers of tokens: OUTPUT-00000-of-00004, ..."""
    max_tokens: int = 0
    """Write as many as are needed for none to have more tokens."""
    shares: tuple[str, ...] = ()
    """Write OUTPUT-NAME for each NAME=SHARE, in order: train=0.99 validation=0.01."""
    overwrite: bool = False
    """Replace prefixes that exist already."""


@dataclass(frozen=True, kw_only=True)
class VerifyArguments:
    """Say whether prefixes are whole and unaltered; exits with 1 if one is not."""

    paths: Positional[tuple[str, ...]]
    """Prefixes, and folders that hold some at any depth."""
    full: bool = False
    """Read all tokens too: checksums, and the range of ids."""


@dataclass(frozen=True, kw_only=True)
class RepairArguments:
    """Make a lost or damaged .idx again from its .bin and manifest.

    It is written only if it has the checksum that the manifest keeps.
    """

    prefixes: Positional[tuple[str, ...]]
    """Prefixes whose .idx is missing or damaged."""


@dataclass(frozen=True, kw_only=True)
class InitArguments:
    """Print a config file with every setting, its default and what it means."""

    training: Annotated[Literal["pretrain", "finetune"], arg(name="for")] = "pretrain"
    """The training that it is for."""


@dataclass(frozen=True, kw_only=True)
class DemoArguments:
    """Fetch the demo corpus: real text in many scripts, for a first run."""

    output: str
    """Folder to write it to."""
    offline: bool = False
    """Fetch nothing: only the sample that comes with gristmill."""
    pip_args: str = ""
    """Options for pip, which fetches it: an index, a proxy, `--no-index --find-links FOLDER`."""
