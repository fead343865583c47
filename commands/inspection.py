"""What lies at a path: any file or folder that gristmill reads or writes in, a page of text out."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import ConfigError

if TYPE_CHECKING:
    from .arguments import InspectArguments

_WIDTH = 80
_RECORDS = ("report.json", "pretrain_report.json", "checkpoint.json")
TEXT_SUFFIXES = (".jsonl", ".json", ".ndjson", ".txt", ".md", ".gz", ".zst")


def answer(arguments: InspectArguments) -> str:
    """Return the page that `gristmill inspect` was asked for.

    Raises:
        ConfigError: two questions at once, or one that PATH cannot answer.
    """
    from . import blend_inspection as blend

    path = Path(arguments.path)
    questions = {
        "--plan": arguments.plan,
        "--sample": arguments.sample >= 0,
        "--step": arguments.step >= 0,
        "--document": arguments.document >= 0,
        "--megatron": bool(arguments.megatron),
    }
    asked = [name for name, is_asked in questions.items() if is_asked]
    if len(asked) > 1:
        raise ConfigError(f"{' and '.join(asked)} ask two things: give one of them")
    try:
        if arguments.document >= 0:
            return blend.describe_document(path, arguments.document)
        if arguments.sample >= 0:
            return blend.describe_samples(path, sample=arguments.sample)
        if arguments.step >= 0:
            return blend.describe_samples(path, step=arguments.step)
        if arguments.megatron:
            per_split = arguments.megatron == "per-split"
            return blend.megatron_arguments(path, arguments.phase, per_split)
        if arguments.plan:
            return blend.describe_plan(path, arguments.num_samples)
    except IndexError as error:
        raise ConfigError(f"{path}: {error}") from None
    return describe(path)


def describe(path: Path) -> str:
    """Return a page of text about `path`; each kind of thing is described by its own room.

    Raises:
        ConfigError: nothing is there, or nothing that gristmill knows.
    """
    from ..indexed_dataset import find_prefixes
    from ..indexed_dataset.describe import describe_folder, describe_prefix

    prefix = path.with_suffix("") if path.suffix in {".bin", ".idx", ".origin"} else path
    if path.suffix == ".json" and path.with_suffix(".idx").exists():
        prefix = path.with_suffix("")
    if Path(f"{prefix}.idx").exists():
        return describe_prefix(prefix)
    if path.name in _RECORDS and path.is_file():
        return _record(path)
    if path.is_dir():
        if (path / "report.json").exists() or (path / "work").is_dir():
            return _run(path)
        if (path / "tokenizer.json").exists() and not (path / "checkpoint.json").exists():
            return _tokenizer(path)
        if any(path.glob("*.idx")):
            return describe_folder(path)
        inner = [folder for folder in (path / "train", path / "validation") if folder.is_dir()]
        if inner:
            parts = [f"{folder.name}\n{describe_folder(folder)}" for folder in inner]
            return "\n\n".join((*parts, *_plan(path)))
        if _is_checkpoint(path):
            return _checkpoint(path)
        if find_prefixes(path):
            return describe_folder(path)
        if any(path.glob("*.parquet")) or any(path.glob("*.jsonl")):
            return _files(path)
        raise ConfigError(
            f"{path} is a folder, but neither a run's output, nor holds prefixes, a tokenizer or a "
            "checkpoint: name a file or folder inside it"
        )
    if not path.exists():
        raise ConfigError(f"there is nothing at {path} (nor {prefix}.idx): check the spelling")
    if path.suffix == ".toml":
        from ..config import read_config

        read_config(path)
        return "\n".join((path.read_text(), *_plan(path)))
    if path.suffix == ".parquet":
        from ..pipeline.describe import describe_parquet

        return describe_parquet(path)
    if path.name.startswith("tokenizer") and ".json" in path.suffixes:
        return _tokenizer(path)
    if path.suffix in TEXT_SUFFIXES:
        from ..pipeline.describe import describe_text

        return describe_text(path)
    raise ConfigError(
        f"{path} is of no kind that gristmill knows: prefixes (.bin, .idx), .parquet, "
        f"{', '.join(TEXT_SUFFIXES)}, .toml, tokenizer.json, and folders of them"
    )


def _files(path: Path) -> str:
    """Describe a folder of documents, verdicts or rejected lines by its size and its first file."""
    files = sorted([*path.glob("*.parquet"), *path.glob("*.jsonl")])
    size = sum(file.stat().st_size for file in files) / 1e6
    return f"{path}: {len(files)} files, {size:,.2f} MB; the first of them:\n\n" + describe(
        files[0]
    )


def _is_checkpoint(path: Path) -> bool:
    """Whether `path` is a checkpoint, the folder of a run's checkpoints, or of a run."""
    places = ("checkpoint.json", "step_*/checkpoint.json", "checkpoints/step_*/checkpoint.json")
    return any(True for place in places for _ in path.glob(place))


def _checkpoint(path: Path) -> str:
    """Describe a checkpoint, and the scores of the run that it belongs to."""
    from ..trainer import describe_checkpoint

    parts = [describe_checkpoint(path)]
    if (path / "pretrain_report.json").exists():
        parts.append(_record(path / "pretrain_report.json"))
    return "\n\n".join(parts)


def _record(path: Path) -> str:
    """Show what a run has written about itself as it was shown at its end."""
    if path.name == "checkpoint.json":
        return _checkpoint(path.parent)
    text = io.StringIO()
    try:
        if path.name == "report.json":
            from rich.console import Console

            from ..pipeline.report import load_report, show_report

            show_report(load_report(path), Console(file=text, width=_WIDTH))
        else:
            from ..trainer.report import print_report, read_report

            print_report(read_report(path.parent) or {}, path.parent, file=text)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is damaged, or no report of gristmill: run the command that wrote it again"
        ) from error
    return text.getvalue()


def _tokenizer(path: Path) -> str:
    from ..pipeline.describe import describe_tokenizer

    return describe_tokenizer(path)


def _run(path: Path) -> str:
    """Describe the output folder of a run: its tables, its data and its checkpoints."""
    from ..indexed_dataset.describe import describe_folder

    parts = []
    if (path / "report.json").exists():
        parts.append(_record(path / "report.json"))
    else:
        parts.append("preprocess has not finished here: run it again to go on\n")
    for split in ("train", "validation"):
        if (path / "data" / split).is_dir():
            parts.append(f"data/{split}\n{describe_folder(path / 'data' / split)}\n")
    parts += [f"{part}\n" for part in _plan(path)]
    if _is_checkpoint(path):
        parts.append(_checkpoint(path))
    return "\n".join(parts)


def _plan(path: Path) -> list[str]:
    """Return what a training draws, where there are a config and data."""
    from .blend_inspection import describe_plan, has_blend

    return [f"what pretrain draws\n{describe_plan(path)}"] if has_blend(path) else []
