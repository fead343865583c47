"""What lies at a path: any file or folder that gristmill reads or writes in, a page of text out."""

from __future__ import annotations

import io
from pathlib import Path

from .config import ConfigError

TEXT_SUFFIXES = (".jsonl", ".json", ".ndjson", ".txt", ".md", ".gz", ".zst")


def describe(path: Path) -> str:
    """Return a page of text about `path`; each kind of thing is described by its own room.

    Raises:
        ConfigError: nothing is there, or nothing that gristmill knows.
    """
    from .indexed_dataset import find_prefixes
    from .indexed_dataset.describe import describe_folder, describe_prefix

    prefix = path.with_suffix("") if path.suffix in {".bin", ".idx", ".origin"} else path
    if path.suffix == ".json" and path.with_suffix(".idx").exists():
        prefix = path.with_suffix("")
    if Path(f"{prefix}.idx").exists():
        return describe_prefix(prefix)
    if path.is_dir():
        if (path / "report.json").exists() or (path / "work").is_dir():
            return _run(path)
        if (path / "tokenizer.json").exists() and not (path / "checkpoint.json").exists():
            return _tokenizer(path)
        if any(path.glob("*.idx")):
            return describe_folder(path)
        inner = [folder for folder in (path / "train", path / "validation") if folder.is_dir()]
        if inner:
            return "\n\n".join(f"{folder.name}\n{describe_folder(folder)}" for folder in inner)
        if _is_checkpoint(path):
            from .trainer import describe_checkpoint

            return describe_checkpoint(path)
        if find_prefixes(path):
            return describe_folder(path)
        raise ConfigError(
            f"{path} is a folder, but neither a run's output, nor holds prefixes, a tokenizer or a "
            "checkpoint: name a file or folder inside it"
        )
    if not path.exists():
        raise ConfigError(f"there is nothing at {path} (nor {prefix}.idx): check the spelling")
    if path.suffix == ".toml":
        from .config import read_config

        read_config(path)
        return path.read_text()
    if path.suffix == ".parquet":
        from .pipeline.describe import describe_parquet

        return describe_parquet(path)
    if path.name.startswith("tokenizer") and ".json" in path.suffixes:
        return _tokenizer(path)
    if path.suffix in TEXT_SUFFIXES:
        from .pipeline.describe import describe_text

        return describe_text(path)
    raise ConfigError(
        f"{path} is of no kind that gristmill knows: prefixes (.bin, .idx), .parquet, "
        f"{', '.join(TEXT_SUFFIXES)}, .toml, tokenizer.json, and folders of them"
    )


def _is_checkpoint(path: Path) -> bool:
    return (path / "checkpoint.json").exists() or (path / "checkpoints").is_dir()


def _tokenizer(path: Path) -> str:
    from .pipeline.describe import describe_tokenizer

    return describe_tokenizer(path)


def _run(path: Path) -> str:
    """Describe the output folder of a run: its tables, its data and its checkpoints."""
    from rich.console import Console

    from .indexed_dataset.describe import describe_folder
    from .pipeline.report import load_report, show_report

    parts = []
    if (path / "report.json").exists():
        text = io.StringIO()
        show_report(load_report(path / "report.json"), Console(file=text, width=140))
        parts.append(text.getvalue())
    else:
        parts.append("preprocess has not finished here: run it again to go on\n")
    for split in ("train", "validation"):
        if (path / "data" / split).is_dir():
            parts.append(f"data/{split}\n{describe_folder(path / 'data' / split)}\n")
    if (path / "checkpoints").is_dir():
        from .trainer import describe_checkpoint

        parts.append(describe_checkpoint(path))
    return "\n".join(parts)
