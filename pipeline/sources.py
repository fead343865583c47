"""Which files to read: sources from the config in, files with stable names out.

A file's `origin_file` is its name relative to its source's root (the folder, or what stands in
front of a glob's first wildcard), so that moving a folder changes nothing. Where two files would
have the same name, the folders above them are added until they differ. Files come in one order,
by priority and name, whatever the order they are given in.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ..indexed_dataset.object_store import StoredFile, folder_exists, is_url, join_path
from . import huggingface
from .config import SourceConfig
from .documents import DOCUMENT_FIELDS
from .formats import (
    FORMAT_NAMES,
    Format,
    compression_of,
    format_of,
    is_surely_documents,
    supported,
)
from .input_files import InputFile
from .paths import is_pattern, match_glob, not_found, walk
from .remote_paths import match_url

logger = logging.getLogger(__name__)

MAX_PRIORITY = 9_999


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """A file to read, and what its source says about it."""

    source: SourceConfig
    source_name: str
    path: str
    """Where it lies now; a hub id for format "hub"."""
    origin_file: str
    """Its name in everything that is written."""
    format: Format
    compression: Literal["", "gzip", "zstd"]
    language: str
    """Language of all its documents as the input has it; "": each document says its own."""
    size_bytes: int
    version: str = ""
    """Of a file in an object store: its ETag, or time of change, when it was found."""

    @property
    def is_remote(self) -> bool:
        """Whether it lies in an object store."""
        return is_url(self.path)

    @property
    def input(self) -> InputFile:
        """What `open_input` opens."""
        if self.is_remote:
            return StoredFile(self.path, self.size_bytes, self.version)
        return self.path


def find_files(sources: Sequence[SourceConfig]) -> list[SourceFile]:
    """Return the files of all sources, each once, in the order in which they count.

    Raises:
        ValueError: a source has settings that do not fit together.
        FileNotFoundError: a path matches nothing; the message says what is near.
    """
    if not sources:
        raise ValueError(
            "no sources: name files or folders on the command line, or give the config a "
            "[[preprocess.sources]] table with a path"
        )
    found: list[_Found] = []
    for source in sources:
        _check(source)
        paths = (source.path,) if isinstance(source.path, str) else source.path
        if not paths:
            raise ValueError("a source has an empty list as its path: name at least one file")
        name = source.name or _derived_name(paths)
        for path in paths:
            found += _find(replace(source, path=path), path, name)
    found.sort(key=lambda one: (one.source.priority, one.source_name, one.relative, one.path))
    files = _name_apart(_once(found))
    return sorted(files, key=lambda file: (file.source.priority, file.origin_file))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    source: SourceConfig
    source_name: str
    path: str  # absolute, or a hub id
    relative: str  # to the source's root, with slashes
    format: Format
    language: str
    size_bytes: int
    version: str = ""


def _check(source: SourceConfig) -> None:
    where = f"source {source.name or source.path!r}"
    if not 0 <= source.priority <= MAX_PRIORITY:
        raise ValueError(
            f"{where}: priority is {source.priority}; it must be from 0 to {MAX_PRIORITY}"
        )
    taken = {field.name for field in DOCUMENT_FIELDS}
    clash = [name for name in source.columns if name in taken]
    if clash:
        raise ValueError(
            f"{where}: columns names {clash[0]!r}, which every document has anyway "
            f"({', '.join(sorted(taken))}). Leave it out of `columns`"
        )
    if len(set(source.columns)) != len(source.columns):
        raise ValueError(f"{where}: columns names a column twice: {', '.join(source.columns)}")
    if source.format != "huggingface":
        unused = {
            "subset": bool(source.subset),
            "split": source.split != "train",
            "revision": bool(source.revision),
            "streaming": not source.streaming,
            "max_documents": source.max_documents != 0,
        }
        named = [key for key, is_set in unused.items() if is_set]
        if named:
            raise ValueError(
                f'{where}: {named[0]} is for data sets only: set format = "huggingface", or leave '
                f"{named[0]} out"
            )
    if source.text_unit != "file" and source.format not in ("auto", "text", "huggingface"):
        raise ValueError(
            f"{where}: text_unit is for plain text, but format is {source.format!r}: leave one out"
        )
    if source.max_documents < 0:
        raise ValueError(f"{where}: max_documents is {source.max_documents}; 0 means no limit")


def _find(source: SourceConfig, path: str, name: str) -> Iterable[_Found]:
    if is_url(path):
        return _find_remote(source, path, name)
    path = os.path.expanduser(path)
    if source.format == "huggingface":
        return _find_data_set(source, path, name)
    if os.path.isdir(path):
        root = os.path.abspath(path)
        return _choose(source, name, path, root, [(one, "") for one in walk(root)])
    if os.path.isfile(path):
        if source.format == "auto" and format_of(path) is None:
            raise ValueError(
                f"{path}: files of this kind are not known. Known are {supported()}; "
                f"or set the source's format to one of {', '.join(FORMAT_NAMES)}"
            )
        root, relative = os.path.split(os.path.abspath(path))
        return [_one(source, name, root, relative, "")]
    if os.path.exists(path):
        raise ValueError(f"{path} is neither a file nor a folder: save its content to a file first")
    if is_pattern(path):
        root, matches = match_glob(path)
        if matches:
            return _choose(source, name, path, root, matches)
    raise FileNotFoundError(_missing(source, path))


def _find_remote(source: SourceConfig, url: str, name: str) -> list[_Found]:
    """Return the files that a URL names; the store says their sizes and versions."""
    if source.format == "huggingface":
        raise ValueError(
            f'{url} lies in an object store, and format "huggingface" reads folders and the hub. '
            "Leave the format out: the Parquet and Arrow files of a data set are read as they are"
        )
    root, files, languages, is_file = match_url(url)
    if is_file:
        return [_one(source, name, root, one, "", file) for one, file in files.items()]
    matches = [(relative, languages.get(relative, "")) for relative in files]
    return list(_choose(source, name, url, root, matches, files))


def _find_data_set(source: SourceConfig, path: str, name: str) -> list[_Found]:
    if not os.path.isdir(path):
        if os.path.exists(path) or path.startswith((".", "/")) or path.count("/") > 1:
            raise FileNotFoundError(
                f"{path} is no data set folder and no hub id (owner/name): correct the path, or "
                'leave format = "huggingface" out to read plain files'
            )
        parts = (path, source.subset, source.split)
        language = source.language or huggingface.language_of_subset(source.subset)
        return [
            _Found(
                source=source,
                source_name=name,
                path=path,
                relative="/".join(part for part in parts if part),
                format="hub",
                language=language,
                size_bytes=0,
            )
        ]
    if source.revision:
        raise ValueError(
            f"{path} is a local folder, which has no revisions: leave revision out, or give the "
            "hub id as the path"
        )
    root = os.path.abspath(path)
    files = huggingface.local_files(root, source.subset, source.split)
    language = huggingface.language_of_subset(source.subset)
    return [_one(source, name, root, relative, language) for relative in files]


def _one(
    source: SourceConfig,
    name: str,
    root: str,
    relative: str,
    language: str,
    stored: StoredFile | None = None,
) -> _Found:
    path = join_path(root, relative) if stored is None else stored.url
    file_format: Format | None
    if source.format == "auto" or source.format == "huggingface":
        file_format = format_of(relative)
    else:
        file_format = source.format
    if file_format is None:
        raise ValueError(f"{path}: files of this kind are not known. Known are {supported()}")
    return _Found(
        source=source,
        source_name=name,
        path=path,
        relative=relative.replace(os.sep, "/"),
        format=file_format,
        language=source.language or language,
        size_bytes=os.path.getsize(path) if stored is None else stored.size_bytes,
        version="" if stored is None else stored.version,
    )


def _choose(
    source: SourceConfig,
    name: str,
    path: str,
    root: str,
    matches: Sequence[tuple[str, str]],
    stored: Mapping[str, StoredFile] | None = None,
) -> Iterator[_Found]:
    """Yield those of a folder's or glob's files that hold documents, and tell about the rest."""
    wanted = {
        relative
        for relative, _ in matches
        if (
            format_of(relative) == source.format
            if source.format != "auto"
            else format_of(relative) is not None
        )
    }
    if source.format != "auto" and not wanted and is_pattern(path):
        wanted = {relative for relative, _ in matches}  # the user says what they are
    if not wanted:
        kinds = Counter(Path(relative).suffix or "no suffix" for relative, _ in matches)
        has = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common(5)) or "no files"
        raise FileNotFoundError(
            f"{path}: nothing to read here (it has {has}). Known are {supported()}"
        )
    sure = {relative for relative in wanted if is_surely_documents(relative)}
    if sure and source.format == "auto":
        wanted = sure  # a README.md or stats.json beside data files is no document
    left_out = sorted(relative for relative, _ in matches if relative not in wanted)
    if left_out:
        some = ", ".join(left_out[:3]) + (", ..." if len(left_out) > 3 else "")
        logger.warning(
            "%s: %d of %d files are not read: %s (name them as a source of their own, with their "
            "format, to read them)",
            path,
            len(left_out),
            len(matches),
            some,
        )
    for relative, language in matches:
        if relative in wanted:
            yield _one(source, name, root, relative, language, stored[relative] if stored else None)


def _missing(source: SourceConfig, path: str) -> str:
    looks_like_hub_id = path.count("/") == 1 and not path.startswith((".", "/", "~"))
    hint = ""
    if source.format == "auto" and looks_like_hub_id and not is_pattern(path):
        hint = '. For a data set on the Hugging Face hub set format = "huggingface"'
    return not_found(path) + hint


def _derived_name(paths: Sequence[str]) -> str:
    """Return the name of a source that has none: of its file, or of the folder of its files."""
    absolute = [_absolute(path) for path in paths]
    if len(paths) == 1 and not is_pattern(paths[0]):
        name = os.path.basename(absolute[0])
        return name if folder_exists(paths[0].rstrip("/")) else name.split(".")[0] or name
    folders = []
    for given, path in zip(paths, absolute, strict=True):
        fixed = list(itertools.takewhile(lambda part: not is_pattern(part), Path(path).parts))
        whole = os.path.join(*fixed)
        is_folder = (
            folder_exists(_scheme(given) + whole.lstrip("/"))
            if is_url(given)
            else (os.path.isdir(whole))
        )
        folders.append(whole if is_folder or len(fixed) == 1 else os.path.dirname(whole))
    return os.path.basename(os.path.commonpath(folders)) or "input"


def _absolute(path: str) -> str:
    """Return a path from the root on; of a URL what stands behind its scheme."""
    if is_url(path):
        return "/" + path.rstrip("/").removeprefix(_scheme(path)).lstrip("/")
    return os.path.abspath(os.path.expanduser(path))


def _scheme(url: str) -> str:
    return url.partition("://")[0] + "://"


def _once(found: Sequence[_Found]) -> list[_Found]:
    """Drop files that were named before, by whatever path."""
    seen: dict[str, _Found] = {}
    for one in found:
        key = one.path if is_url(one.path) else os.path.realpath(one.path)
        if one.format == "hub":
            key = one.relative
        if key in seen:
            logger.warning(
                "%s is named twice (also as %s): it is read once, as part of source %r",
                one.path,
                seen[key].path,
                seen[key].source_name,
            )
        else:
            seen[key] = one
    return list(seen.values())


def _name_apart(found: Sequence[_Found]) -> list[SourceFile]:
    """Give every file a name of its own: the relative one, with folders above where needed."""
    names = {index: one.relative for index, one in enumerate(found)}
    depth = 0
    while clashing := {name for name, count in Counter(names.values()).items() if count > 1}:
        depth += 1
        for index, one in enumerate(found):
            if names[index] in clashing:
                names[index] = _with_folders(one, depth)
        assert depth < 1000
    return [
        SourceFile(
            source=one.source,
            source_name=one.source_name,
            path=one.path,
            origin_file=_printable(names[index]),
            format=one.format,
            compression=compression_of(one.path) if one.format != "hub" else "",
            language=one.language,
            size_bytes=one.size_bytes,
            version=one.version,
        )
        for index, one in enumerate(found)
    ]


def _with_folders(one: _Found, depth: int) -> str:
    parts = one.path.split(os.sep)
    return "/".join(parts[-(one.relative.count("/") + 1 + depth) :]).lstrip("/")


def _printable(name: str) -> str:
    """Return a file name that is valid UTF-8, which names on disk need not be."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
