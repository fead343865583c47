"""Folders and globs: a path as the user writes it in, files relative to a root out."""

from __future__ import annotations

import difflib
import glob
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path


def is_pattern(path: str) -> bool:
    """Say whether `path` has wild cards or a `{language}`."""
    return "{language}" in path or glob.has_magic(path)


def match_glob(path: str) -> tuple[str, list[tuple[str, str]]]:
    """Return (root, [(file relative to it, language or "")]) of a glob."""
    path = os.path.abspath(path)
    parts = path.split(os.sep)
    fixed = list(itertools.takewhile(lambda part: not is_pattern(part), parts))
    root = os.sep.join(fixed[: len(parts) - 1]) or os.sep
    pattern = os.path.relpath(path, root)
    names = glob.glob(pattern.replace("{language}", "*"), root_dir=root, recursive=True)
    language = re.compile(glob_regex(pattern)) if "{language}" in pattern else None
    matches = []
    for name in sorted(set(names)):
        if not os.path.isfile(os.path.join(root, name)):
            continue
        found = language.fullmatch(name) if language else None
        if language is None:
            matches.append((name, ""))
        elif found:
            matches.append((name, found["language"]))
    return root, matches


def walk(root: str) -> Iterator[str]:
    """Yield the files below `root`, relative; hidden ones and `_SUCCESS` marks are left out."""
    seen = {os.path.realpath(root)}
    for folder, folders, files in os.walk(root, followlinks=True):
        kept = []
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(folder, name))
            if not name.startswith((".", "_")) and real not in seen:
                seen.add(real)  # a link to a folder above would never end
                kept.append(name)
        folders[:] = kept
        for name in sorted(files):
            if not name.startswith((".", "_")) and os.path.isfile(os.path.join(folder, name)):
                yield os.path.relpath(os.path.join(folder, name), root)


def not_found(path: str) -> str:
    """Say that a path matches nothing, and what is near."""
    parts = Path(os.path.abspath(path)).parts
    known = Path(parts[0])
    for index, part in enumerate(parts[1:], 1):
        if not (known / part).exists():
            missing = part
            rest = parts[index + 1 :]
            break
        known /= part
    else:  # it has appeared meanwhile
        return f"{path}: nothing matches"
    kind = "no file matches" if is_pattern(path) else "no such file or folder"
    try:
        there = sorted(os.listdir(known))
    except OSError:
        there = []
    near = difflib.get_close_matches(missing, there, n=3, cutoff=0.5)
    if near:
        hint = "near it: " + ", ".join(str(Path(known, one, *rest)) for one in near)
    elif there:
        hint = f"{known} holds " + ", ".join(there[:5]) + (", ..." if len(there) > 5 else "")
    else:
        hint = f"{known} is empty"
    return f"{path}: {kind}; {hint}"


def glob_regex(pattern: str) -> str:
    """Return the regular expression of a glob with `{language}` in it (twice: the same one)."""
    tokens = re.split(r"(\*\*/|\*\*|\*|\?|\[!?[^\]]+\]|\{language\})", pattern)
    seen = False
    result = ""
    for token in tokens:
        if token == "{language}":
            result += "(?P=language)" if seen else "(?P<language>[^/]+?)"
            seen = True
        elif token.startswith("["):
            result += token.replace("[!", "[^", 1)
        else:
            known = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
            result += known.get(token, re.escape(token))
    return result
