"""What the stages of one run of dedup share, and the first two: keys and equal texts.

Clean markers flow in; numbered documents with their keys, and the documents that have equal texts,
flow out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..kernels.folding import UNICODE_VERSION
from .config import DedupConfig
from .dedup_exact import PART_DOCUMENTS, ExactArguments, write_exact
from .dedup_keys import KeysArguments, write_keys
from .dedup_layout import Part, part_name
from .dedup_preference import parse_keep, priority_of
from .executors import Executor
from .progress import Progress
from .scratch import Chain
from .stage import Marker, Stage, Unit, UnitResult

VERSIONS = {
    "keys": 3,
    "exact": 1,
    "buckets": 1,
    "components": 1,
    "shingles": 2,
    "boilerplate": 1,
    "verify": 2,
    "verdicts": 2,
    "index": 1,
}
"""Raised by hand when a stage's output changes."""


class DedupRun:
    """One run: what its stages share."""

    def __init__(
        self,
        config: DedupConfig,
        output: Path,
        clean_markers: Mapping[str, Marker],
        executor: Executor,
        progress: Progress,
        keep_scratch: bool = False,
    ) -> None:
        self.config, self.output, self.clean = config, output, clean_markers
        self.executor = executor
        self.chain = Chain(output, executor, progress, keep=keep_scratch)
        self.work = output / "work"
        self.num_bands = config.num_bands if config.near else 0
        self.keep = parse_keep(config.keep)
        self.parts: list[Part] = []
        self.old_fingerprints: list[str] = []

    def stage(self, name: str, settings: object, function: Callable[..., UnitResult]) -> Stage:
        """Return a stage of dedup with its version."""
        return Stage(name=name, version=VERSIONS[name], settings=settings, function=function)

    def documents(self, unit: str) -> Path | None:
        """Return the unit's documents file, None where cleaning wrote none."""
        name = f"documents/{unit}.parquet"
        return self.output / name if name in dict(self.clean[unit].outputs) else None

    def document_bytes(self, unit: str) -> int:
        """Return the size of the unit's documents file, for the progress bar."""
        return dict(self.clean[unit].outputs).get(f"documents/{unit}.parquet", 0)

    def key_units(self) -> tuple[Stage, list[Unit]]:
        """Return the stage `keys` and its units."""
        config = self.config
        # Equal texts are equally long, and numbers follow the sources' priority.
        ranked = tuple(key for key in self.keep if key.kind in ("column", "priority"))
        has_ranks = any(key.kind == "column" for key in ranked) and config.exact
        units = [
            Unit(
                name=name,
                arguments=KeysArguments(
                    documents=self.documents(name),
                    keys=self.work / "keys" / f"{name}.npy",
                    ranks=self.work / "keys" / f"{name}.ranks.npy" if has_ranks else None,
                    bands=self.work / "bands" / f"{name}.npy" if self.num_bands else None,
                    num_bands=self.num_bands,
                    rows_per_band=config.rows_per_band,
                    seed=config.seed,
                    scope=config.scope,
                    keep=ranked,
                    priority=priority_of(name),
                ),
                inputs=(marker.fingerprint,),
                size_bytes=self.document_bytes(name),
            )
            for name, marker in self.clean.items()
        ]
        settings = [self.num_bands, config.rows_per_band, config.seed, UNICODE_VERSION]
        settings += [config.scope, [str(key) for key in ranked] if has_ranks else []]
        return self.stage("keys", settings, write_keys), units

    def run_keys(self) -> dict[str, Marker]:
        """Write hashes and band keys of all documents."""
        return self.chain.run(*self.key_units())

    def number_parts(self, old: Sequence[Part], keys: Mapping[str, Marker]) -> None:
        """Number all documents: old ones first, then units in order."""
        _, units = self.key_units()
        new = [
            Part(
                name=unit.name,
                first_document=0,
                num_documents=keys[unit.name].counts["documents"],
                keys=unit.arguments.keys,
                ranks=unit.arguments.ranks,
                bands=self.work / "bands" / f"{unit.name}.npy",
                documents=unit.arguments.documents,
                is_old=False,
            )
            for unit in units
        ]
        total = 0
        for part in [*old, *new]:
            self.parts.append(replace(part, first_document=total))
            total += part.num_documents

    @property
    def num_documents(self) -> int:
        """Return the number of documents, old ones counted in."""
        return sum(part.num_documents for part in self.parts)

    def run_exact(self, keys: Mapping[str, Marker]) -> dict[str, Marker]:
        """Find equal texts."""
        if not self.config.exact:
            return {}
        inputs = (*self.old_fingerprints, *(marker.fingerprint for marker in keys.values()))
        num_ranges = max(1, -(-self.num_documents // PART_DOCUMENTS))
        units = [
            Unit(
                name=part_name(number, num_ranges),
                arguments=ExactArguments(
                    parts=tuple(self.parts),
                    range_number=number,
                    num_ranges=num_ranges,
                    among_new=self.config.among_new,
                    exact=self.exact_path(part_name(number, num_ranges)),
                ),
                inputs=inputs,
                size_bytes=8 * self.num_documents,
            )
            for number in range(num_ranges)
        ]
        stage = self.stage("exact", [self.config.among_new], write_exact)
        return self.chain.run(stage, units, ["keys"])

    def exact_path(self, name: str) -> Path:
        """Return the file of one unit of the stage `exact`."""
        return self.work / "exact" / f"{name}.npy"
