"""Pack: sorted runs of token ids in, train and validation prefixes out.

Each prefix is one unit: it takes its documents' rows out of the runs' indexes, sorts them by
placement key (ties by origin), and copies their tokens in that order. So the bytes depend on the
documents alone, not on how they were spread over units or workers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..indexed_dataset import IndexedDatasetBuilder, PrefixExistsError, dtype_for_vocab_size
from ..indexed_dataset.atomic import write_atomically
from ..indexed_dataset.manifest import side_suffix
from ..indexed_dataset.paths import SUFFIXES
from . import tokenize, train_tokenizer
from .config import PreprocessConfig
from .executors import Executor, advance
from .pack_plan import PlannedPrefix, held_out, plan_prefixes
from .progress import Progress
from .rehydration import Schedule
from .shards import alone
from .stage import Marker, Stage, Unit, UnitResult, run_stage
from .token_runs import (
    BLOCK_TOKENS,
    MASK_DTYPE,
    RUN_DTYPE,
    Run,
    mask_file,
    read_tokens,
    run_files,
    token_blocks,
)
from .tokenizer import Tokenizer
from .train_tokenizer import TokenizerResult

VERSION = 2

_SPLITS = ("train", "validation")

LOSS_MASK = "loss_mask"
"""Name of the side stream of conversations: uint8, 1 where predicting the token counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PackArguments:
    """One unit's work."""

    output: Path
    planned: PlannedPrefix
    manifest: dict[str, Any]
    """What every prefix's manifest says: vocab_size, eod_id, tokenizer, config, stages."""
    has_mask: bool = False
    """Whether the runs have loss masks."""


def run(
    config: PreprocessConfig,
    output: Path,
    tokenize_markers: Mapping[str, Marker],
    tokenizer: TokenizerResult,
    executor: Executor,
    progress: Progress,
    stages: Mapping[str, int] | None = None,
    schedule: Schedule | None = None,
    prepare: Callable[[], None] = lambda: None,
) -> dict[str, Marker]:
    """Write every prefix; return the markers by prefix name (`train.eng_Latn`).

    Counts of a marker: prefix ("train/eng_Latn"), split, group, repeat, documents, tokens,
    text_bytes and languages {language: {documents, tokens, text_bytes}}.

    Args:
        config: the resolved configuration; stands in the manifests without paths.
        output: the run's output folder.
        tokenize_markers: markers of the tokenize stage by unit.
        tokenizer: the run's tokenizer.
        executor: where units run.
        progress: what the user sees.
        stages: versions of the stages before the tokenizer's, for the manifests.
        schedule: how often documents are drawn (rehydration); None: all alike.
        prepare: called before the first prefix is written, if one has to be: the tokens of the
            runs may have been removed.

    Raises:
        PrefixExistsError: a prefix in data/ was not written by this run.
    """
    refuse_foreign_prefixes(output)
    planned = plan_prefixes(config.pack, output / "work" / "runs", tokenize_markers, schedule)
    engine = Tokenizer(str(tokenizer.folder), eod=tokenizer.eod)
    manifest = {
        "vocab_size": engine.vocab_size,
        "eod_id": engine.eod_id,
        "tokenizer": {"path": "../tokenizer", "fingerprint": tokenizer.fingerprint},
        "config": manifest_config(config),
        "stages": {
            **(stages or {}),
            "train_tokenizer": train_tokenizer.VERSION,
            "tokenize": tokenize.VERSION,
            "pack": VERSION,
        },
    }
    with alone(executor.shard, output):
        _claim(output, [prefix.prefix for prefix in planned])
    inputs = tuple(marker.fingerprint for marker in tokenize_markers.values())
    units = [
        Unit(
            name=prefix.prefix.replace("/", "."),
            arguments=PackArguments(
                output=output,
                planned=prefix,
                manifest=manifest,
                has_mask=config.kind != "text",
            ),
            inputs=(json.dumps(asdict(prefix), sort_keys=True), *inputs),
            size_bytes=prefix.num_tokens * engine.dtype.itemsize,
        )
        for prefix in planned
    ]
    stage = Stage(name="pack", version=VERSION, settings=manifest, function=pack_prefix)
    return run_stage(stage, units, output, executor, progress, prepare=prepare)


def pack_prefix(arguments: PackArguments) -> UnitResult:
    """Write one prefix."""
    planned, manifest = arguments.planned, arguments.manifest
    if planned.steps:
        config = {**manifest["config"], "blend": {"repeat": planned.repeat}}
        manifest = {**manifest, "config": config}
    folder = arguments.output / "work" / "runs"
    selected = _select(folder, planned)
    rows = selected.rows
    prefix = arguments.output / "data" / planned.prefix
    builder = IndexedDatasetBuilder(
        prefix,
        vocab_size=manifest["vocab_size"],
        overwrite=True,
        streams={LOSS_MASK: MASK_DTYPE} if arguments.has_mask else None,
    )
    dtype = dtype_for_vocab_size(manifest["vocab_size"])
    with builder:
        for first, last in token_blocks(rows["num_tokens"], BLOCK_TOKENS):
            block = rows[first:last]
            runs = selected.runs[first:last]
            tokens = _read_block(folder, planned, block, runs, dtype)
            origins = np.stack([block["file"].astype(np.int64), block["offset"]], axis=1)
            streams = None
            if arguments.has_mask:
                mask = _read_block(folder, planned, block, runs, MASK_DTYPE, masks=True)
                streams = {LOSS_MASK: mask}
            builder.add_documents(tokens, block["num_tokens"], origins=origins, streams=streams)
            advance(tokens.nbytes)
        languages = _tally(rows, rows["language"], selected.languages)
        builder.finalize(
            text_bytes=int(rows["text_bytes"].sum()),
            document_order="shuffled",
            split=planned.split,
            group=planned.group,
            shard=planned.shard,
            num_shards=planned.num_shards,
            languages=languages,
            sources=_tally(rows, rows["source"], selected.sources),
            origin_files=[name for _, name in selected.files],  # unique in a run
            **{key: manifest[key] for key in ("eod_id", "tokenizer", "config", "stages")},
        )
    return UnitResult(
        counts={
            "prefix": planned.prefix,
            "split": planned.split,
            "group": planned.group,
            "repeat": planned.repeat,
            "documents": len(rows),
            "tokens": int(rows["num_tokens"].sum()),
            "text_bytes": int(rows["text_bytes"].sum()),
            "languages": languages,
        },
        outputs=tuple(
            prefix.with_name(prefix.name + suffix)
            for suffix in (*SUFFIXES, *([side_suffix(LOSS_MASK)] if arguments.has_mask else []))
        ),
    )


def refuse_foreign_prefixes(output: Path) -> None:
    """Refuse to write beside prefixes that this run has not written.

    They would be overwritten, or be read as if they belonged to the run's data.

    Raises:
        PrefixExistsError: names the first of them.
    """
    ours = set(_claimed(output))
    for split in _SPLITS:
        for path in sorted((output / "data" / split).glob("*.idx")):
            if f"{split}/{path.stem}" not in ours:
                raise PrefixExistsError(
                    f"the dataset {path.with_suffix('')} exists already and was not written by "
                    f"this run (it is not in {_claims_path(output)}): it would be mixed with what "
                    "is written now. Choose another output folder, or remove its files"
                )


def manifest_config(config: PreprocessConfig) -> dict[str, Any]:
    """Return the configuration as manifests hold it.

    Left out is what says where things lie or how work is cut up, and does not change a token:
    paths (the tokenizer is known by its fingerprint), models, lists, unit sizes, partitions.
    """
    plain = asdict(config)
    for source in plain["sources"]:
        del source["path"]
        if config.kind == "text":
            del source["task"]
    if config.kind == "text":
        del plain["chat"]
    else:
        del plain["chat"]["template"]  # beside the tokenizer
    del plain["filters"]["url_block_list"], plain["clean"]["language"]["model"]
    for evaluation in plain["filters"]["decontamination"]["evaluations"]:
        del evaluation["path"]
    for scorer in plain["clean"]["annotate"]["scorers"]:
        del scorer["model"]
    del plain["clean"]["unit_bytes"], plain["dedup"]["partitions"], plain["tokenizer"]["path"]
    return plain


@dataclass(frozen=True, kw_only=True, slots=True)
class _Selected:
    """Documents of one prefix, in its order."""

    rows: NDArray[Any]
    """RUN_DTYPE[n], its numbers those of the names below."""
    runs: NDArray[np.int64]
    """int64[n], which of the plan's runs holds each."""
    languages: list[str]
    sources: list[str]
    files: list[tuple[str, str]]


def _select(folder: Path, planned: PlannedPrefix) -> _Selected:
    members = set(planned.members)
    steps = dict(planned.steps)
    low, high = planned.keys
    parts: list[NDArray[Any]] = [np.zeros(0, RUN_DTYPE)]
    runs: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    languages = sorted({language for language, _ in members})
    sources = sorted({source for _, source in members})
    files: dict[tuple[str, str], int] = {}
    for number, name in enumerate(planned.runs):
        run = Run(folder / name)
        for language, source, first, last in run.names.slices:
            if (language, source) not in members:
                continue
            keys = run.rows["placement"][first:last]  # sorted
            stop = np.searchsorted(keys, np.uint64(high - 1), side="right")
            start = np.searchsorted(keys, np.uint64(low), side="left")
            rows = np.array(run.rows[first + int(start) : first + int(stop)])
            held = held_out(rows["validation"], planned.validation_below)
            rows = rows[held if planned.split == "validation" else ~held]
            if planned.repeats:
                repeats = Schedule(languages=steps).repeats(language, rows["cluster_size"])
                rows = rows[np.isin(repeats, planned.repeats)]
            rows["language"] = languages.index(language)
            rows["source"] = sources.index(source)
            used, inverse = np.unique(rows["file"], return_inverse=True)
            numbers = [files.setdefault(run.names.files[code], len(files)) for code in used]
            rows["file"] = np.array(numbers, np.int32)[inverse]
            parts.append(rows)
            runs.append(np.full(len(rows), number, np.int64))
    rows, run_numbers = np.concatenate(parts), np.concatenate(runs)
    names = sorted(files)
    ranks = np.zeros(len(names), np.int32)
    ranks[[files[name] for name in names]] = np.arange(len(names))
    rows["file"] = ranks[rows["file"]]
    order = np.lexsort((rows["offset"], rows["file"], rows["placement"]))
    return _Selected(
        rows=rows[order],
        runs=run_numbers[order],
        languages=languages,
        sources=sources,
        files=names,
    )


def _read_block(
    folder: Path,
    planned: PlannedPrefix,
    block: NDArray[Any],
    runs: NDArray[np.int64],
    dtype: np.dtype[Any],
    *,
    masks: bool = False,
) -> NDArray[Any]:
    """Return the tokens (or masks) of consecutive documents, each run read forward only."""
    places = np.cumsum(block["num_tokens"]) - block["num_tokens"]
    tokens = np.empty(int(block["num_tokens"].sum()), dtype)
    for number in np.unique(runs).tolist():
        of_run = runs == number
        path = folder / planned.runs[number]
        with open(mask_file(path) if masks else run_files(path)[0], "rb") as stream:
            read_tokens(stream.fileno(), block[of_run], dtype, tokens, places[of_run])
    return tokens


def _tally(
    rows: NDArray[Any], numbers: NDArray[np.int32], names: list[str]
) -> dict[str, dict[str, int]]:
    """Return documents, tokens and text bytes of each name that occurs."""
    tally = {}
    for number, name in enumerate(names):
        own = rows[numbers == number]
        if len(own):
            tally[name] = {
                "documents": len(own),
                "tokens": int(own["num_tokens"].sum()),
                "text_bytes": int(own["text_bytes"].sum()),
            }
    return tally


def _claims_path(output: Path) -> Path:
    return output / "work" / "prefixes.json"


def _claimed(output: Path) -> list[str]:
    path = _claims_path(output)
    if not path.is_file():
        return []
    prefixes: list[str] = json.loads(path.read_bytes())
    return prefixes


def _claim(output: Path, prefixes: list[str]) -> None:
    """Note down, before the first is written, which prefixes are this run's.

    A prefix that was noted down earlier and is not planned any more is removed (a run with other
    settings was killed after writing it and before its marker).
    """
    for prefix in set(_claimed(output)) - set(prefixes):
        path = output / "data" / prefix
        for suffix in (side_suffix(LOSS_MASK), *reversed(SUFFIXES)):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    if sorted(prefixes) != _claimed(output):
        write_atomically(_claims_path(output), json.dumps(sorted(prefixes), indent=1).encode())
