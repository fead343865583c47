"""Clean documents flow in, a verdict for every document flows out: kept, or a copy of which one.

keys -> group -> shingles -> verify -> verdicts. Documents are streamed twice (keys, shingles of
candidates), never read at random and never held in memory together:

1. keys: hash of the text and MinHash band keys of each document (parallel by unit);
2. group: equal texts, and near-copy candidates that share a band key (one process, flat arrays);
3. shingles: shingle sets of the candidates only (parallel by unit);
4. verify: exact similarity decides which candidates are copies (parallel by partition);
5. verdicts: one row for every document that was read (parallel by unit).

Of equal texts the first is kept (source priority, relative file, offset: the order of the units),
of near copies the longest or the first.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .. import kernels
from ..kernels.folding import UNICODE_VERSION
from .config import DedupConfig, PreprocessConfig
from .dedup_files import partition_name
from .dedup_groups import GroupArguments, write_groups
from .dedup_keys import KeysArguments, write_keys
from .dedup_shingles import ShinglesArguments, write_shingles
from .dedup_verdicts import VerdictsArguments, write_verdicts
from .dedup_verify import VerifyArguments, write_verified
from .executors import Executor
from .progress import Progress
from .stage import Marker, Stage, Unit, fingerprint, run_stage

logger = logging.getLogger(__name__)

# Raised by hand when a stage's output changes.
KEYS_VERSION = 1
GROUP_VERSION = 1
SHINGLES_VERSION = 1
VERIFY_VERSION = 1
VERDICTS_VERSION = 1


def jaccard(left: str, right: str, seed: int = 0) -> float:
    """Return the Jaccard similarity of two texts' shingle sets: what `dedup.threshold` is about.

    Texts without words, ideographs or symbols have no shingle and are similar to nothing (0.0).
    """
    texts = [left.encode(), right.encode()]
    data = np.frombuffer(b"".join(texts), np.uint8)
    offsets = np.array([0, len(texts[0]), len(data)], np.int64)
    values, bounds, shifts = kernels.shingle_sets(data, offsets, seed)
    similarity: float = kernels.set_jaccard(
        values[: bounds[1]], values[bounds[1] :], int(shifts.max())
    )
    return similarity


def run(
    config: PreprocessConfig,
    output: Path,
    clean_markers: Mapping[str, Marker],
    executor: Executor,
    progress: Progress,
) -> dict[str, Marker]:
    """Run the stages of dedup; return the markers of the verdicts, one for each clean unit.

    Args:
        config: `config.dedup` is used.
        output: output folder of the run.
        clean_markers: markers of the stage `clean`, in the order that decides which copy is first.
        executor, progress: where units run and how that is shown.
    """
    return _Dedup(config.dedup, output, clean_markers, executor, progress).run()


class _Dedup:
    """One run: what its stages share."""

    def __init__(
        self,
        config: DedupConfig,
        output: Path,
        clean_markers: Mapping[str, Marker],
        executor: Executor,
        progress: Progress,
    ) -> None:
        self.config, self.output, self.clean = config, output, clean_markers
        self.executor, self.progress = executor, progress
        self.work = output / "work"
        self.num_bands = config.num_bands if config.near else 0

    def run(self) -> dict[str, Marker]:
        config = self.config
        groups, verified = None, None
        first_documents = dict.fromkeys(self.clean, 0)
        if config.exact or config.near:
            kernels.warm_kernels()  # workers load what is compiled here once
            keys = self.run_keys()
            total = 0
            for name, marker in keys.items():
                first_documents[name] = total
                total += marker.counts["documents"]
            groups = self.run_group(keys)
            if config.near:
                shingles = self.run_shingles(keys, groups, first_documents)
                verified = self.run_verify(shingles)
        return self.run_verdicts(groups, verified, first_documents)

    def stage_units(self, stage: Stage, units: list[Unit]) -> dict[str, Marker]:
        return run_stage(stage, units, self.output, self.executor, self.progress)

    def documents(self, unit: str) -> Path | None:
        """Return the unit's documents file, None where cleaning wrote none."""
        name = f"documents/{unit}.parquet"
        return self.output / name if name in dict(self.clean[unit].outputs) else None

    def document_bytes(self, unit: str) -> int:
        return dict(self.clean[unit].outputs).get(f"documents/{unit}.parquet", 0)

    def run_keys(self) -> dict[str, Marker]:
        config = self.config
        settings = [self.num_bands, config.rows_per_band, config.seed, UNICODE_VERSION]
        units = [
            Unit(
                name=name,
                arguments=KeysArguments(
                    documents=self.documents(name),
                    keys=self.work / "keys" / f"{name}.npy",
                    num_bands=self.num_bands,
                    rows_per_band=config.rows_per_band,
                    seed=config.seed,
                ),
                inputs=(marker.fingerprint,),
                size_bytes=self.document_bytes(name),
            )
            for name, marker in self.clean.items()
        ]
        stage = Stage(name="keys", version=KEYS_VERSION, settings=settings, function=write_keys)
        return self.stage_units(stage, units)

    def run_group(self, keys: Mapping[str, Marker]) -> Marker:
        unit = Unit(
            name="groups",
            arguments=GroupArguments(
                keys=tuple(self.work / "keys" / f"{name}.npy" for name in keys),
                groups=self.work / "group" / "groups.npy",
                exact=self.config.exact,
                num_bands=self.num_bands,
            ),
            inputs=tuple(marker.fingerprint for marker in keys.values()),
            size_bytes=sum(size for marker in keys.values() for _, size in marker.outputs),
        )
        settings = [self.config.exact, self.num_bands]
        stage = Stage(name="group", version=GROUP_VERSION, settings=settings, function=write_groups)
        return self.stage_units(stage, [unit])["groups"]

    def run_shingles(
        self, keys: Mapping[str, Marker], groups: Marker, first_documents: Mapping[str, int]
    ) -> dict[str, Marker]:
        folder = self.work / "shingles"
        units = [
            Unit(
                name=name,
                arguments=ShinglesArguments(
                    documents=self.documents(name),
                    keys=self.work / "keys" / f"{name}.npy",
                    groups=self.work / "group" / "groups.npy",
                    first_document=first_documents[name],
                    records=folder / f"{name}.npy",
                    values=folder / f"{name}.values",
                    num_partitions=self.config.partitions,
                    seed=self.config.seed,
                ),
                inputs=(marker.fingerprint, groups.fingerprint),
                size_bytes=self.document_bytes(name),
            )
            for name, marker in keys.items()
        ]
        settings = [self.config.partitions, self.config.seed]
        stage = Stage(
            name="shingles", version=SHINGLES_VERSION, settings=settings, function=write_shingles
        )
        return self.stage_units(stage, units)

    def run_verify(self, shingles: Mapping[str, Marker]) -> dict[str, Marker]:
        config = self.config
        inputs = (fingerprint([marker.fingerprint for marker in shingles.values()]),)
        total = sum(marker.counts["shingles"] for marker in shingles.values())
        units = []
        for partition in range(config.partitions):
            name = partition_name(partition, config.partitions)
            arguments = VerifyArguments(
                shingles=self.work / "shingles",
                units=tuple(shingles),
                partition=partition,
                num_bands=self.num_bands,
                threshold=config.threshold,
                keep=config.keep,
                verified=self.work / "verify" / f"{name}.npy",
            )
            size_bytes = 8 * total // config.partitions
            units.append(Unit(name=name, arguments=arguments, inputs=inputs, size_bytes=size_bytes))
        settings = [config.threshold, config.keep]
        stage = Stage(
            name="verify", version=VERIFY_VERSION, settings=settings, function=write_verified
        )
        markers = self.stage_units(stage, units)
        skipped = sum(marker.counts["pairs_not_compared"] for marker in markers.values())
        full = sum(marker.counts["full_buckets"] for marker in markers.values())
        if skipped or full:
            logger.warning(
                "dedup: in very large groups of similar documents %s candidate pairs were not "
                "compared and %s entries of crowded buckets were left out, so a few near copies "
                "may be kept there; nothing was removed without being compared",
                f"{skipped:,}",
                f"{full:,}",
            )
        return markers

    def run_verdicts(
        self,
        groups: Marker | None,
        verified: Mapping[str, Marker] | None,
        first_documents: Mapping[str, int],
    ) -> dict[str, Marker]:
        found = [
            groups.fingerprint if groups else "",
            [marker.fingerprint for marker in verified.values()] if verified else [],
        ]
        units = [
            Unit(
                name=name,
                arguments=VerdictsArguments(
                    documents=self.documents(name),
                    rejected=tuple(
                        self.output / path
                        for path, _ in marker.outputs
                        if path.startswith("rejected/")
                    ),
                    groups=self.work / "group" / "groups.npy" if groups else None,
                    verify=self.work / "verify" if verified else None,
                    num_partitions=self.config.partitions,
                    first_document=first_documents[name],
                    verdicts=self.output / "verdicts" / f"{name}.parquet",
                ),
                inputs=(marker.fingerprint, fingerprint(found)),
                size_bytes=self.document_bytes(name),
            )
            for name, marker in self.clean.items()
        ]
        stage = Stage(
            name="verdicts", version=VERDICTS_VERSION, settings=[], function=write_verdicts
        )
        return self.stage_units(stage, units)
