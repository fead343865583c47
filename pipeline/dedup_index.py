"""Keys and verdicts of a run flow in, an index flows out, which a later run dedups against.

```
OUTPUT/index/index.json      what the keys were made with; written last
OUTPUT/index/keys/UNIT.npy   uint64[5, kept documents]: hash of the text (2), id (2), row in
                             OUTPUT/documents/UNIT.parquet
OUTPUT/index/bands/UNIT.npy  uint64[num_bands, kept documents]
```
An index has the documents that its run kept. Where a new document is a candidate, the old text is
read again from `OUTPUT/documents`, so that folder belongs to the index. Hashes, band keys and
shingles of two runs are compared only if they were made alike: `index.json` says how.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from ..indexed_dataset.atomic import write_atomically
from ..kernels.folding import UNICODE_VERSION
from .array_files import save_array
from .config import DedupConfig
from .dedup_files import INDEX_ROW, NUM_HASH_ROWS, Part, open_array
from .executors import advance
from .stage import UnitResult, fingerprint

SCHEMA_VERSION = 1
KEYS_FORMAT = 1
"""Raised when the same text gets another hash, band key or shingle than before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexArguments:
    """What one unit of the stage `index` gets."""

    keys: Path
    bands: Path | None
    verdicts: Path
    index_keys: Path
    index_bands: Path | None
    """The files to write."""


def write_index_unit(arguments: IndexArguments) -> UnitResult:
    """Write the keys of the unit's kept documents."""
    keys = open_array(arguments.keys)
    kept = pq.read_table(arguments.verdicts, columns=["kept"])["kept"].to_numpy()
    rows = np.flatnonzero(kept[: keys.shape[1]])  # rejected documents come after the clean ones
    index = np.empty((NUM_HASH_ROWS + 1, len(rows)), np.uint64)
    index[:NUM_HASH_ROWS] = keys[:, rows]
    index[INDEX_ROW] = rows
    outputs = [save_array(arguments.index_keys, index)]
    if arguments.bands and arguments.index_bands:
        bands = open_array(arguments.bands)
        outputs.append(save_array(arguments.index_bands, bands[:, rows]))
        advance(bands.nbytes)
    return UnitResult(counts={"documents": len(rows)}, outputs=tuple(outputs))


def settings_of(config: DedupConfig) -> dict[str, Any]:
    """Return what two runs must have in common for their keys to be comparable."""
    return {
        "keys_format": KEYS_FORMAT,
        "num_bands": config.num_bands if config.near else 0,
        "rows_per_band": config.rows_per_band,
        "seed": config.seed,
        "scope": config.scope,
        "unicode_version": UNICODE_VERSION,
    }


def write_index_file(output: Path, config: DedupConfig, units: Sequence[tuple[str, int]]) -> None:
    """Write `index.json`, by which the index counts as whole; units: (name, kept documents)."""
    value = {
        "schema_version": SCHEMA_VERSION,
        "settings": settings_of(config),
        "units": [{"name": name, "documents": count} for name, count in units],
    }
    content = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    write_atomically(output / "index" / "index.json", content.encode())


def open_indices(config: DedupConfig) -> list[Part]:
    """Return the parts of all indices in `dedup.against`, in the order given.

    Raises:
        ValueError: a folder has no index, or one that cannot be compared with this run.
    """
    return [
        part
        for number, folder in enumerate(config.against)
        for part in _open_index(config, Path(folder), number)
    ]


def fingerprint_of(part: Part) -> str:
    """Return what a part of an index is known by: its files' sizes and times."""
    paths = [part.keys, part.bands if part.bands.exists() else None, part.documents]
    status = [path.stat() for path in paths if path]
    return fingerprint(part.name, [(one.st_size, one.st_mtime_ns) for one in status])


def _open_index(config: DedupConfig, folder: Path, number: int) -> Iterator[Part]:
    path = folder / "index" / "index.json"
    try:
        value = json.loads(path.read_bytes())
        version, theirs = value["schema_version"], value["settings"]
        units = [(unit["name"], int(unit["documents"])) for unit in value["units"]]
    except FileNotFoundError:
        raise ValueError(
            f"dedup.against names {folder}, which has no index ({path} does not exist): run what "
            "wrote it once more with dedup.write_index = true (--dedup.write-index); only the "
            "index is made then"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is no index ({error!r}): delete it and make it again with dedup.write_index"
        ) from error
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{path} is of version {version}, and this gristmill reads version {SCHEMA_VERSION}: "
            "make the index again with dedup.write_index"
        )
    ours = settings_of(config)
    if ours["num_bands"] == 0:
        theirs = {**theirs, "num_bands": 0}
    different = [name for name in ours if theirs.get(name) != ours[name]]
    if different:
        name = different[0]
        raise ValueError(
            f"{path} was made with {name} = {theirs.get(name)}, and this run has {name} = "
            f"{ours[name]}: their keys cannot be compared. Use the same settings, or make the "
            "index again"
        )
    for name, count in units:
        if count == 0:
            continue
        part = Part(
            name=f"index-{number:03}-{name}",
            first_document=0,
            num_documents=count,
            keys=folder / "index" / "keys" / f"{name}.npy",
            ranks=None,
            bands=folder / "index" / "bands" / f"{name}.npy",
            documents=folder / "documents" / f"{name}.parquet",
            is_old=True,
        )
        for needed in (part.keys, part.documents, *([part.bands] if config.near else [])):
            if needed is not None and not needed.is_file():
                raise ValueError(
                    f"the index {path} needs {needed}, which does not exist: an index is its "
                    "folder `index` and the folder `documents` beside it. Put the file back, or "
                    "run what wrote it again"
                )
        yield part
