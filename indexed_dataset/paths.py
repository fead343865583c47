"""Names of files: a prefix in, its files out; a folder in, its prefixes by group out."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from .errors import IndexedDatasetError, PrefixNotFoundError
from .object_store import folder_exists, is_url, join_path, list_files

SUFFIXES = (".bin", ".idx", ".json", ".origin")

_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})")


class PrefixPaths(NamedTuple):
    """The files of one prefix."""

    bin: Path
    idx: Path
    json: Path
    origin: Path


def strip_suffix(prefix: str | os.PathLike[str]) -> str:
    """Return `prefix` without a trailing .bin, .idx, .json or .origin."""
    text = os.fspath(prefix)
    for suffix in SUFFIXES:
        if text.endswith(suffix):
            return text[: -len(suffix)]
    return text


def prefix_paths(prefix: str | os.PathLike[str]) -> PrefixPaths:
    """Return the files of a prefix given as `PREFIX`, or as any one of them.

    Example: prefix_paths("data/eng_Latn.idx").bin == Path("data/eng_Latn.bin").
    """
    text = strip_suffix(prefix)
    return PrefixPaths(*(Path(text + suffix) for suffix in SUFFIXES))


def shard_name(group: str, shard: int, num_shards: int) -> str:
    """Return the file name of one shard of a group; a group of one shard has the group's name.

    Example: shard_name("eng_Latn", 0, 3) == "eng_Latn-00000-of-00003".
    """
    return group if num_shards == 1 else f"{group}-{shard:05d}-of-{num_shards:05d}"


def find_prefixes(folder: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Return the prefixes of a folder (or of one in an object store) by group, all in order.

    Example: {"deu_Latn": ["d/deu_Latn"], "eng_Latn": ["d/eng_Latn-00000-of-00002",
    "d/eng_Latn-00001-of-00002"]}.

    Raises:
        PrefixNotFoundError: no such folder, or a shard is missing.
        IndexedDatasetError: a group exists both whole and in shards, or with two shard counts.
    """
    root = folder if is_url(folder) else Path(folder)
    if not folder_exists(root):
        raise PrefixNotFoundError(
            f"there is no folder {root}. Give the folder that holds the .bin and .idx files"
        )
    numbered: dict[str, dict[tuple[int, int], str]] = {}
    for stem in _indices(root):
        shard = _SHARD.fullmatch(stem)
        group, key = (shard[1], (int(shard[2]), int(shard[3]))) if shard else (stem, (0, 1))
        numbered.setdefault(group, {})[key] = join_path(root, stem)
    for group, shards in numbered.items():
        counts = {count for _, count in shards}
        if len(counts) > 1 or len({number for number, _ in shards}) < len(shards):
            raise IndexedDatasetError(
                f"{root}: the group {group} exists in several versions "
                f"({', '.join(Path(p).name for p in shards.values())}), so its tokens would count "
                "twice. Remove those that are out of date"
            )
        (count,) = counts
        missing = [shard_name(group, i, count) for i in range(count) if (i, count) not in shards]
        if missing:
            raise PrefixNotFoundError(
                f"{root}: {group} has {count} shards, but {', '.join(missing[:5])} "
                f"({len(missing)} in all) are missing. Copy or write them again"
            )
    return {group: [shards[key] for key in sorted(shards)] for group, shards in numbered.items()}


def _indices(folder: str | os.PathLike[str]) -> list[str]:
    """Return the names of the .idx files in a folder, without suffix, sorted."""
    if is_url(folder):
        names = [name for name in list_files(os.fspath(folder)) if "/" not in name]
    else:
        names = os.listdir(folder)
    return sorted(name[: -len(".idx")] for name in names if name.endswith(".idx"))
