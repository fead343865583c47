"""Merge: prefixes in, one prefix with all their documents, or all but some, out.

The .bin and .idx are those that megatron-core's builder writes when it adds the same prefixes; the
manifest is theirs put together. Memory does not grow with the data (24 bytes for each run of
documents between two that are dropped). The new prefix appears whole or not at all, and may be one
of the inputs, if overwriting is allowed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .assembling import Assembly, Progress, assemble
from .chosen_documents import ChosenDocuments, read_chunks
from .dropping import DocumentFacts, Origin, WantedOrigins
from .errors import DocumentNotFoundError, IndexedDatasetError
from .manifest import DatasetManifest, SideStreamEntry
from .paths import prefix_paths
from .reader import IndexedDataset
from .split import require_same_tokenizer

Table = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeReport:
    """What `merge` did."""

    manifest: DatasetManifest
    """That of the new prefix."""
    num_dropped: int
    """Documents of the inputs that were left out."""
    missing: tuple[Origin, ...]
    """Origins that were to be dropped and that no input has (only if that is allowed)."""
    notes: tuple[str, ...]
    """What the inputs knew and the new prefix does not, and why."""


def merge(
    prefixes: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    drop_origins: Mapping[Origin, DocumentFacts | None] | None = None,
    drop_documents: Mapping[int, Iterable[int]] | None = None,
    allow_missing: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> MergeReport:
    """Write one prefix with the documents of all `prefixes`, in their order.

    Args:
        prefixes: one or more, without suffix.
        output: the prefix to write; may be one of `prefixes` if `overwrite` is set.
        drop_origins: documents to leave out, by (origin file, row or byte offset). With what is
            known about each of them the counts of languages, sources and text bytes stay exact;
            where nothing is known of one, the new manifest does not have them.
        drop_documents: documents to leave out: for the number of an input the numbers of its
            documents. Nothing is known of these.
        allow_missing: an origin that no input has is reported, not an error.
        overwrite: replace an existing dataset.
        progress: called with the bytes written and the bytes in all.

    The index of an input is checked entry by entry; its tokens are copied as they are, altered or
    not, and where their blocks fall elsewhere get new checksums: `verify(..., full=True)` the
    inputs first where that is in doubt.

    Raises:
        TokenizerMismatchError: inputs of different tokenizers.
        DocumentNotFoundError: a document to drop is in no input.
        IndexedDatasetError: dtypes or side streams that do not go together.
        and what opening the inputs and writing the output raise.
    """
    datasets = [IndexedDataset(prefix) for prefix in prefixes]
    if not datasets:
        raise IndexedDatasetError("nothing to merge: name one prefix or more")
    require_same_tokenizer((dataset.prefix, dataset.manifest) for dataset in datasets)
    dtype, streams = _common_dtype(datasets), _common_streams(datasets)
    dropped, facts, missing = _find(datasets, drop_origins or {}, drop_documents or {})
    if missing and not allow_missing:
        shown = ", ".join(f"{file} {offset}" for file, offset in missing[:5])
        raise DocumentNotFoundError(
            f"{len(missing)} of the documents to drop are in none of the {len(datasets)} datasets "
            f"(origin file and offset: {shown}{', ...' if len(missing) > 5 else ''}), and nothing "
            "was written. Name all datasets they may be in, or allow missing ones"
        )
    parts = [
        ChosenDocuments(dataset, 0, dataset.num_documents, numbers)
        for dataset, numbers in zip(datasets, dropped, strict=True)
    ]
    notes: list[str] = []
    known = [dataset.manifest for dataset in datasets if dataset.num_documents]
    manifests = [manifest for manifest in known if manifest is not None]
    if len(manifests) < len(known):
        notes.append("an input has no manifest, so tokenizer, languages and text bytes are unknown")
        manifests = []
    files, file_numbers = _join_origins(datasets, notes)
    manifest = DatasetManifest(
        dtype=dtype.name,
        num_documents=0,
        num_sequences=0,
        num_tokens=0,
        vocab_size=_shared(manifests, "vocab_size"),
        eod_id=_shared(manifests, "eod_id"),
        tokenizer=_tokenizer(datasets, manifests, output),
        document_order=_shared(manifests, "document_order") or "input",
        split=_shared(manifests, "split"),
        group=_shared(manifests, "group"),
        origin_files=files,
        side_streams=streams,
        config=_shared(manifests, "config") or {},
        stages=_shared(manifests, "stages") or {},
        **_tables(datasets, manifests, dropped, facts, notes),
    )
    written = assemble(
        Assembly(parts=parts, manifest=manifest, file_numbers=file_numbers),
        output,
        overwrite=overwrite,
        progress=progress,
    )
    return MergeReport(
        manifest=written,
        num_dropped=sum(map(len, dropped)),
        missing=tuple(missing),
        notes=tuple(notes),
    )


def _common_dtype(datasets: Sequence[IndexedDataset]) -> np.dtype[Any]:
    """Return the narrowest dtype that holds the values of all datasets."""
    dtypes = {dataset.dtype for dataset in datasets}
    if len({dtype.kind == "f" for dtype in dtypes}) > 1:
        raise IndexedDatasetError(
            f"{datasets[0].prefix} and others: some hold ids and some hold floats "
            f"({', '.join(sorted(d.name for d in dtypes))}). Merge them apart"
        )
    return np.result_type(*dtypes).newbyteorder("<")


def _common_streams(datasets: Sequence[IndexedDataset]) -> dict[str, SideStreamEntry]:
    """Return the side streams, without checksums; refuse datasets that have others."""
    first: tuple[str, dict[str, SideStreamEntry]] | None = None
    for dataset in datasets:
        entries = {} if dataset.manifest is None else dataset.manifest.side_streams
        bare = {n: SideStreamEntry(dtype=e.dtype, suffix=e.suffix) for n, e in entries.items()}
        first = first or (dataset.prefix, bare)
        if bare != first[1]:
            raise IndexedDatasetError(
                f"{dataset.prefix} has the side streams {sorted(bare) or 'none'}, but {first[0]} "
                f"has {sorted(first[1]) or 'none'} (or of another dtype): tokens of the merged "
                "dataset would have no entry. Write both with the same ones"
            )
    return {} if first is None else first[1]


def _find(
    datasets: Sequence[IndexedDataset],
    origins: Mapping[Origin, DocumentFacts | None],
    documents: Mapping[int, Iterable[int]],
) -> tuple[list[NDArray[np.int64]], list[list[DocumentFacts | None]], list[Origin]]:
    """Return for each dataset the documents to drop and what is known of each; and the missing."""
    wanted, seen = WantedOrigins(origins), set[int]()
    numbers: list[NDArray[np.int64]] = []
    facts: list[list[DocumentFacts | None]] = []
    for place, dataset in enumerate(datasets):
        found, sources = wanted.find_in(dataset)
        seen.update(sources.tolist())
        by_number = {
            number: origins[wanted.origins[source]]
            for number, source in zip(found.tolist(), sources.tolist(), strict=True)
        }
        for number in documents.get(place, ()):
            if not 0 <= number < dataset.num_documents:
                raise DocumentNotFoundError(
                    f"{dataset.prefix} has {dataset.num_documents} documents, so there is no "
                    f"document {number} to drop"
                )
            by_number.setdefault(int(number), None)
        numbers.append(np.array(sorted(by_number), np.int64))
        facts.append([by_number[number] for number in sorted(by_number)])
    if set(documents) - set(range(len(datasets))):
        raise DocumentNotFoundError(
            f"documents to drop are given for the inputs {sorted(documents)}, but there are "
            f"{len(datasets)}, counted from 0"
        )
    missing = [origin for place, origin in enumerate(wanted.origins) if place not in seen]
    return numbers, facts, missing


def _shared(manifests: Sequence[DatasetManifest], name: str) -> Any:
    """Return what all manifests say of a field, or None where they differ."""
    values = [getattr(manifest, name) for manifest in manifests]
    return values[0] if values and all(value == values[0] for value in values) else None


def _tokenizer(
    datasets: Sequence[IndexedDataset],
    manifests: Sequence[DatasetManifest],
    output: str | os.PathLike[str],
) -> dict[str, str] | None:
    """Return the common tokenizer, its path relative to the new manifest."""
    if len({(m.tokenizer or {}).get("fingerprint") for m in manifests}) != 1:
        return None
    for dataset in datasets:
        if dataset.manifest in manifests and dataset.manifest is not None:
            return moved_tokenizer(dataset.manifest, dataset.prefix, output)
    return None


def moved_tokenizer(
    manifest: DatasetManifest, prefix: str, output: str | os.PathLike[str]
) -> dict[str, str] | None:
    """Return a manifest's tokenizer with its path made relative to another prefix."""
    if manifest.tokenizer is None or "path" not in manifest.tokenizer:
        return None if manifest.tokenizer is None else dict(manifest.tokenizer)
    folder = (Path(prefix).parent / manifest.tokenizer["path"]).resolve()
    path = os.path.relpath(folder, prefix_paths(output).json.parent.resolve())
    return {**manifest.tokenizer, "path": Path(path).as_posix()}


def _join_origins(
    datasets: Sequence[IndexedDataset], notes: list[str]
) -> tuple[tuple[str, ...], list[NDArray[np.int64]] | None]:
    """Return all names of origin files, and for each dataset the new numbers of its own."""
    files: dict[str, int] = {}
    numbers = []
    have = {
        dataset.manifest is not None and prefix_paths(dataset.prefix).origin.exists()
        for dataset in datasets
        if dataset.num_documents
    }
    if have != {True}:
        if True in have:
            notes.append("an input has no .origin, so the new prefix has none")
        return (), None
    for dataset in datasets:
        own = () if dataset.manifest is None else dataset.manifest.origin_files
        numbers.append(np.array([files.setdefault(n, len(files)) for n in own], np.int64))
    return tuple(files), numbers


def _tables(
    datasets: Sequence[IndexedDataset],
    manifests: Sequence[DatasetManifest],
    dropped: Sequence[NDArray[np.int64]],
    facts: Sequence[Sequence[DocumentFacts | None]],
    notes: list[str],
) -> dict[str, Any]:
    """Return text_bytes, languages and sources of what is kept, as far as they are known."""
    if any(fact is None for row in facts for fact in row):
        notes.append(
            "of a dropped document language, source and text bytes are not known, so the new "
            "manifest counts none of them"
        )
        return {}
    minus: dict[str, dict[str, list[int]]] = {"language": {}, "source": {}}
    for dataset, numbers, row in zip(datasets, dropped, facts, strict=True):
        for tokens, fact in zip(_document_tokens(dataset, numbers), row, strict=True):
            if fact is not None:
                for noun, name in (("language", fact.language), ("source", fact.source)):
                    counts = minus[noun].setdefault(name, [0, 0, 0])
                    for place, amount in enumerate((1, tokens, fact.text_bytes)):
                        counts[place] += amount
    sizes = [manifest.text_bytes for manifest in manifests]
    known = [size for size in sizes if size is not None]
    gone = sum(fact.text_bytes for row in facts for fact in row if fact is not None)
    return {
        "text_bytes": sum(known) - gone if known and len(known) == len(sizes) else None,
        "languages": _add_up([m.languages for m in manifests], minus["language"]),
        "sources": _add_up([m.sources for m in manifests], minus["source"]),
    }


def _document_tokens(dataset: IndexedDataset, numbers: NDArray[np.int64]) -> Iterable[int]:
    """Yield the tokens of some documents."""
    for number in numbers.tolist():
        for chunk in read_chunks(ChosenDocuments(dataset, number, number + 1)):
            yield int(chunk.document_tokens[0])


def _add_up(tables: Sequence[Table], minus: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Return the sum of tables less what was dropped; empty where an input counts nothing."""
    if not all(tables):
        return {}
    keys = ("documents", "tokens", "text_bytes")
    total: dict[str, list[int]] = {}
    for table in tables:
        for name, row in table.items():
            counts = total.setdefault(name, [0, 0, 0])
            for place, key in enumerate(keys):
                counts[place] += row[key]
    for name, amounts in minus.items():
        counts = total.setdefault(name, [0, 0, 0])
        for place, amount in enumerate(amounts):
            counts[place] -= amount
    if any(min(counts) < 0 for counts in total.values()):
        raise IndexedDatasetError(
            "the documents to drop count more than the manifests of the inputs do, so the verdicts "
            "do not belong to these datasets. Give those of the run that wrote them"
        )
    return {n: dict(zip(keys, c, strict=True)) for n, c in sorted(total.items()) if any(c)}
