"""The run's tokenizer: a given one copied, or a byte-level BPE trained on the kept documents.

Out: data/tokenizer/tokenizer.json and token_bytes.npy, and for a trained one its fertility per
language beside that of a tokenizer trained on the same sample with GPT-2's splitting.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..indexed_dataset.atomic import write_atomically
from . import chat_tokenizer
from .config import PreprocessConfig, TokenizerConfig
from .cuts import OURS
from .executors import Executor, advance
from .fertility import RATIOS, add_references, measure, measure_fertility
from .progress import Progress
from .stage import Marker, Stage, Unit, UnitResult, run_stage
from .tokenizer import Tokenizer, open_cached
from .tokenizer_sample import read_sample

VERSION = 2

DEFAULT_EOD = "<|endoftext|>"
NUM_RESERVED = 8
"""Special tokens without a meaning yet (`<|reserved_0|>`, ...), for fine-tuning."""

SMALLEST_VOCAB_SIZE = 256 + 1 + NUM_RESERVED
"""Ids that a byte-level tokenizer has before it learns: bytes and special tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerResult:
    """The tokenizer of a run."""

    folder: Path
    """Holds tokenizer.json and token_bytes.npy."""
    fingerprint: str
    """Hash of the normalized tokenizer.json."""
    eod: str
    """Token that ends each document."""
    fertility: list[dict[str, Any]] = field(default_factory=list)
    """One row a language, when it was trained here: see `run`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainArguments:
    """One unit's work."""

    output: Path
    config: TokenizerConfig
    splitting: str
    """ours (written out) or gpt2 (only compared with)."""
    units: tuple[str, ...]
    available: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class CopyArguments:
    """One unit's work, when a tokenizer is given."""

    output: Path
    path: str
    eod: str
    beside: tuple[str, ...] = ()
    """Files beside the tokenizer.json that are copied too."""


def run(
    config: PreprocessConfig,
    output: Path,
    verdict_markers: Mapping[str, Marker],
    executor: Executor,
    progress: Progress,
) -> TokenizerResult:
    """Copy or train the run's tokenizer.

    Rows of `fertility`, the language with the most text first: language, sample_bytes, and for
    ours and for GPT-2's splitting (`gpt2_split_...`) bytes_per_token, tokens_per_byte,
    tokens_per_word (see fertility.py) and tokens_per_character; with
    `tokenizer.reference_tokenizers` the same of each of them under `references`. A given tokenizer
    is measured if there are references to compare it with.

    Raises:
        TokenizerError: the given tokenizer cannot be used, or its EOD token is not known.
        ValueError: nothing to train on.
    """
    references = config.tokenizer.reference_tokenizers
    beside = () if config.kind == "text" else chat_tokenizer.FILES
    if config.tokenizer.path and not references:
        return _copy(config.tokenizer, output, executor, progress, beside)
    available: Counter[str] = Counter()
    for marker in verdict_markers.values():
        for _, language, outcome, _, text_bytes in marker.counts["rows"]:
            if outcome == "kept" and text_bytes > 0:
                available[language] += text_bytes

    def measure_all(paths: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        sizes = (available, config.tokenizer.train_bytes)
        return measure(paths, output, verdict_markers, *sizes, executor, progress)

    def ranked(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted(rows, key=lambda row: (-available[row["language"]], row["language"]))

    if config.tokenizer.path:
        given = _copy(config.tokenizer, output, executor, progress, beside)
        if not available:
            return given
        own = str(given.folder)
        tables = measure_all([own, *(path for path in references if path != own)])
        return replace(given, fertility=ranked(add_references(tables.pop(own), tables)))
    if not available:
        raise ValueError(
            "there is no kept document to train a tokenizer on: see report.json for why documents "
            "were dropped, or give a tokenizer (preprocess.tokenizer.path)"
        )
    stage = Stage(
        name="train_tokenizer",
        version=VERSION,
        # What others are compared with, and how documents are encoded, changes nothing here.
        settings=replace(config.tokenizer, reference_tokenizers=(), special_strings="as_tokens"),
        function=train_unit,
    )
    size = min(config.tokenizer.train_bytes, available.total())
    units = [
        Unit(
            name=splitting,
            arguments=TrainArguments(
                output=output,
                config=config.tokenizer,
                splitting=splitting,
                units=tuple(verdict_markers),
                available=dict(available),
            ),
            inputs=tuple(marker.fingerprint for marker in verdict_markers.values()),
            size_bytes=size,
        )
        for splitting in ("ours", "gpt2")
    ]
    markers = run_stage(stage, units, output, executor, progress)
    ours = markers["ours"].counts
    rows = [
        row | {f"gpt2_split_{name}": other[name] for name in RATIOS}
        for row, other in zip(ours["fertility"], markers["gpt2"].counts["fertility"], strict=True)
    ]
    if references:
        rows = add_references(rows, measure_all(references))
    return TokenizerResult(
        folder=_folder(output),
        fingerprint=ours["fingerprint"],
        eod=ours["eod"],
        fertility=ranked(rows),
    )


def train_unit(arguments: TrainArguments) -> UnitResult:
    """Train one tokenizer on the sample and measure it there."""
    config = arguments.config
    sample = read_sample(arguments.output, arguments.units, arguments.available, config.train_bytes)
    text = train_bpe(
        (text for texts in sample.values() for text in texts),
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=special_tokens(config.eod or DEFAULT_EOD),
        pattern=OURS if arguments.splitting == "ours" else None,
        on_text=lambda text: advance(len(text.encode())),
    )
    import tokenizers

    engine = tokenizers.Tokenizer.from_str(text)

    def count(texts: list[str]) -> int:
        encodings = engine.encode_batch_fast(texts, add_special_tokens=False)
        return sum(len(encoding.ids) for encoding in encodings)

    counts: dict[str, Any] = {"fertility": measure_fertility(sample, count)}
    if arguments.splitting != "ours":
        return UnitResult(counts=counts)
    return _write(arguments.output, text.encode(), config.eod or DEFAULT_EOD, counts)


def copy_unit(arguments: CopyArguments) -> UnitResult:
    """Copy a given tokenizer into the output folder."""
    tokenizer = Tokenizer(arguments.path, eod=arguments.eod)
    result = _write(arguments.output, tokenizer.file.content, arguments.eod, {})
    copied = []
    for name in arguments.beside:
        copied.append(_folder(arguments.output) / name)
        write_atomically(copied[-1], (Path(arguments.path) / name).read_bytes())
    return replace(result, outputs=(*result.outputs, *copied))


def train_bpe(
    texts: Iterable[str],
    *,
    vocab_size: int,
    min_frequency: int = 2,
    special_tokens: list[str],
    pattern: str | None = OURS,
    on_text: Callable[[str], None] = lambda text: None,
) -> str:
    """Train a byte-level BPE and return its tokenizer.json; the same texts give the same bytes.

    Args:
        texts: what to learn from.
        vocab_size: ids, with the 256 bytes and the special tokens.
        min_frequency: a pair seen less often is not merged.
        special_tokens: get the first ids.
        pattern: expression that splits a text into what BPE sees; None: GPT-2's.
        on_text: called with each text as it is read.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    engine = Tokenizer(models.BPE())
    if pattern is None:
        engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    else:
        engine.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    engine.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=special_tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )

    def reported() -> Iterable[str]:
        for text in texts:
            on_text(text)
            yield text

    engine.train_from_iterator(reported(), trainer)
    return str(engine.to_str())


def special_tokens(eod: str) -> list[str]:
    """Return the special tokens of a trained tokenizer, EOD first: its id is 0."""
    return [eod, *(f"<|reserved_{number}|>" for number in range(NUM_RESERVED))]


def _copy(
    config: TokenizerConfig,
    output: Path,
    executor: Executor,
    progress: Progress,
    beside: tuple[str, ...] = (),
) -> TokenizerResult:
    tokenizer = open_cached(config.path, config.eod)
    _ = tokenizer.eod_id  # an unknown EOD is an error now, not when documents are tokenized
    eod = tokenizer.eod or ""
    stage = Stage(
        name="train_tokenizer", version=VERSION, settings={"eod": eod}, function=copy_unit
    )
    unit = Unit(
        name="given",
        arguments=CopyArguments(output=output, path=config.path, eod=eod, beside=beside),
        inputs=(
            tokenizer.fingerprint,
            *((Path(config.path) / name).read_text(encoding="utf-8") for name in beside),
        ),
        size_bytes=len(tokenizer.file.content),
    )
    run_stage(stage, [unit], output, executor, progress)
    return TokenizerResult(folder=_folder(output), fingerprint=tokenizer.fingerprint, eod=eod)


def _write(output: Path, content: bytes, eod: str, counts: dict[str, Any]) -> UnitResult:
    """Write tokenizer.json and token_bytes.npy."""
    folder = _folder(output)
    write_atomically(folder / "tokenizer.json", content)
    tokenizer = Tokenizer(str(folder), eod=eod)
    stream = io.BytesIO()
    np.save(stream, tokenizer.token_bytes())
    write_atomically(folder / "token_bytes.npy", stream.getvalue())
    advance(len(content))
    return UnitResult(
        counts=counts
        | {
            "fingerprint": tokenizer.fingerprint,
            "eod": eod,
            "vocab_size": tokenizer.vocab_size,
        },
        outputs=(folder / "tokenizer.json", folder / "token_bytes.npy"),
    )


def _folder(output: Path) -> Path:
    return output / "data" / "tokenizer"
