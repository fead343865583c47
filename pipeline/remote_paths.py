"""Folders and globs in an object store: a URL as the user writes it in, files below a root out."""

from __future__ import annotations

import difflib
import itertools
import re
from typing import NamedTuple

from ..indexed_dataset.object_store import StoredFile, join_path, list_files, look_up
from .paths import glob_regex, is_pattern


class RemoteMatches(NamedTuple):
    """What a URL names."""

    root: str
    """URL that names are relative to."""
    files: dict[str, StoredFile]
    """By name relative to the root, sorted; hidden ones and `_SUCCESS` marks are left out."""
    languages: dict[str, str]
    """Name -> what stands for `{language}`; empty where the URL has none."""
    is_file: bool
    """Whether the URL names one file, and neither a folder nor a pattern."""


def match_url(url: str) -> RemoteMatches:
    """Return the files that a URL of a file, a folder or a pattern names.

    Raises:
        FileNotFoundError: it matches nothing; the message says what is near.
        ObjectStoreError: the store does not answer.
    """
    scheme, _, rest = url.partition("://")
    parts = rest.rstrip("/").split("/")
    if is_pattern(rest):
        fixed = list(itertools.takewhile(lambda part: not is_pattern(part), parts))
        root = f"{scheme}://{'/'.join(fixed)}"
        pattern = "/".join(parts[len(fixed) :])
        wanted = re.compile(glob_regex(pattern))
        files = list_files(root)
        found = {name: wanted.fullmatch(name) for name in files}
        matched = {name: match for name, match in found.items() if match}
        if not matched:
            raise FileNotFoundError(_not_found(url, root, pattern, list(files)))
        languages = {
            name: match["language"] for name, match in matched.items() if "{language}" in pattern
        }
        return RemoteMatches(root, {name: files[name] for name in matched}, languages, False)
    try:
        file = look_up(url)
    except FileNotFoundError:
        files = list_files(url)
        shown = {name: file for name, file in files.items() if not _is_hidden(name)}
        if not shown:
            above = f"{scheme}://{'/'.join(parts[:-1])}"
            names = list(list_files(above)) if len(parts) > 1 else []
            raise FileNotFoundError(_not_found(url, above, parts[-1], names)) from None
        return RemoteMatches(url.rstrip("/"), shown, {}, False)
    root = f"{scheme}://{'/'.join(parts[:-1])}"
    return RemoteMatches(root, {parts[-1]: file}, {}, True)


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in name.split("/"))


def _not_found(url: str, root: str, missing: str, there: list[str]) -> str:
    """Say that a URL matches nothing, and what is near."""
    kind = "no file matches" if is_pattern(missing) else "no such file or folder"
    names = sorted({name.split("/")[0] for name in there})
    near = difflib.get_close_matches(missing.split("/")[0], names, n=3, cutoff=0.5)
    if near:
        hint = "near it: " + ", ".join(join_path(root, one) for one in near)
    elif names:
        hint = f"{root} holds " + ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    else:
        hint = f"{root} holds nothing"
    return f"{url}: {kind}; {hint}"
