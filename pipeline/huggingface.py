"""Data sets that lie in a local folder as they do on the Hugging Face hub: their files out.

Known are folders written by `save_to_disk`, folders whose README.md lists its configurations, and
the usual layouts without one: `data/{subset}/train/*.parquet` (FineWeb2), `data/train-*.parquet`.
The files are then read as those of any source, in parallel and by parts.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from pathlib import Path

from .formats import format_of, is_surely_documents
from .paths import walk

_SPLIT_WORDS = ("train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval")


def language_of_subset(subset: str) -> str:
    """Return the subset's name if it is a language in full (`swh_Latn`), "" otherwise."""
    return subset if re.fullmatch(r"[a-z]{2,3}[-_][A-Z][a-z]{3}", subset) else ""


def local_files(root: str, subset: str, split: str) -> list[str]:
    """Return the data files of one subset and split, relative to the folder `root`, in order.

    Raises:
        FileNotFoundError: there are none; the message says which subsets or splits there are.
    """
    folder = Path(root)
    if (folder / "dataset_dict.json").is_file():
        splits = json.loads((folder / "dataset_dict.json").read_bytes())["splits"]
        if split not in splits:
            raise FileNotFoundError(_no_such("split", split, root, splits))
        return [f"{split}/{name}" for name in _saved_files(folder / split, subset)]
    if (folder / "state.json").is_file():
        return _saved_files(folder, subset)
    if _has_configurations(folder):
        return _configured_files(root, subset, split)
    return _files_by_layout(root, subset, split)


def _saved_files(folder: Path, subset: str) -> list[str]:
    if subset:
        raise ValueError(
            f"{folder} was written by save_to_disk, which knows no subsets: leave subset "
            f"({subset!r}) out"
        )
    state = json.loads((folder / "state.json").read_bytes())
    return [one["filename"] for one in state["_data_files"]]


def _has_configurations(folder: Path) -> bool:
    readme = folder / "README.md"
    if not readme.is_file():
        return False
    text = readme.read_text(encoding="utf-8", errors="replace")
    header = re.match(r"---\r?\n(.*?)\r?\n---", text, re.DOTALL)
    return bool(header and re.search(r"^configs:", header[1], re.MULTILINE))


def _configured_files(root: str, subset: str, split: str) -> list[str]:
    """Let the `datasets` library read what README.md says about subsets and splits."""
    import datasets

    try:
        builder = datasets.load_dataset_builder(root, name=subset or None)
    except (ValueError, OSError) as error:
        raise FileNotFoundError(f"{root}, subset {subset!r}: {error}") from error
    data_files = builder.config.data_files or {}
    if split not in data_files:
        raise FileNotFoundError(_no_such("split", split, root, [str(name) for name in data_files]))
    return sorted(os.path.relpath(path, root) for path in data_files[split])


def _files_by_layout(root: str, subset: str, split: str) -> list[str]:
    known = [path for path in walk(root) if format_of(path) and path != "README.md"]
    files = [path for path in known if is_surely_documents(path)] or known
    if not files:
        raise FileNotFoundError(f"{root}: no data files in this folder")
    if subset:
        chosen = [path for path in files if subset in Path(path).parts[:-1]]
        if not chosen:
            folders = {part for path in files for part in Path(path).parts[:-1]}
            subsets = sorted(folders - {"data", *_SPLIT_WORDS})
            raise FileNotFoundError(_no_such("subset", subset, root, subsets))
        files = chosen
    chosen = [path for path in files if _mentions(path, split)]
    if chosen:
        return chosen
    others = [word for word in _SPLIT_WORDS if any(_mentions(path, word) for path in files)]
    if others or split != "train":
        raise FileNotFoundError(_no_such("split", split, root, others or ["train"]))
    return files


def _mentions(path: str, word: str) -> bool:
    return re.search(rf"(^|[/._-]){re.escape(word)}([/._-]|$)", path) is not None


def _no_such(what: str, name: str, root: str, there: list[str]) -> str:
    near = difflib.get_close_matches(name, there, n=3) or there[:10]
    more = ", ..." if len(there) > len(near) else ""
    return f"{root} has no {what} {name!r}; it has {', '.join(near) or 'none'}{more}"
