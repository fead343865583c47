"""Clean documents flow in, a verdict for every document flows out: kept, or a copy of which one.

keys -> exact -> buckets -> components -> shingles -> boilerplate -> verify -> verdicts. Documents
are streamed twice (keys, shingles of candidates), never read at random and never held in memory
together; everything else is sorted in parts of bounded size:

1. keys: hash of the text and MinHash band keys of each document (parallel by unit);
2. exact: equal texts (by range of hashes);
3. buckets: documents with equal keys in one band (by band);
4. components: groups of candidates that share buckets (one process);
5. shingles: shingle lists of the candidates only (by unit);
6. boilerplate: shingles that many candidates of a source have (by range of hashes);
7. verify: exact similarity decides which candidates are copies (by partition);
8. verdicts: one row for every document that was read (by unit);
9. index, where wanted: keys of what was kept, for a later run (by unit).

What is large and done with is removed on the way: band keys after 3, buckets after 4, shingles
after 7.
A stage that must be done again makes them again.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from .. import kernels
from ..kernels.folding import UNICODE_VERSION
from .config import DedupConfig, PreprocessConfig
from .dedup_boilerplate import RANGE_SHINGLES, BoilerplateArguments, write_boilerplate
from .dedup_buckets import BucketsArguments, write_buckets
from .dedup_components import ComponentsArguments, write_components
from .dedup_exact import PART_DOCUMENTS, ExactArguments, write_exact
from .dedup_files import Part, part_name
from .dedup_index import (
    IndexArguments,
    fingerprint_of,
    open_indices,
    write_index_file,
    write_index_unit,
)
from .dedup_keys import KeysArguments, write_keys
from .dedup_preference import count_rank_words, parse_keep, priority_of
from .dedup_shingles import ShinglesArguments, write_shingles
from .dedup_verdicts import VerdictsArguments, write_verdicts
from .dedup_verify import VerifyArguments, write_verified
from .executors import Executor
from .progress import Progress
from .stage import (
    Marker,
    Stage,
    Unit,
    UnitResult,
    are_done,
    fingerprint,
    run_stage,
    unit_fingerprint,
)

logger = logging.getLogger(__name__)

VERSIONS = {
    "keys": 2,
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

    Raises:
        ValueError: an index in `dedup.against` is missing or was made with other settings.
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
        self.keep = parse_keep(config.keep)
        self.parts: list[Part] = []
        self.old_fingerprints: list[str] = []

    def run(self) -> dict[str, Marker]:
        config = self.config
        if not (config.exact or config.near):
            return self.run_verdicts({}, None, {})
        old = open_indices(config)
        self.old_fingerprints = [fingerprint_of(part) for part in old]
        kernels.warm_kernels()  # workers load what is compiled here once
        keys = self.run_keys()
        self.number_parts(old, keys)
        exact = self.run_exact(keys)
        components, verified = None, {}
        if config.near:
            components = self.run_components(keys, exact)
            verified = self.run_verify(components, exact)
        verdicts = self.run_verdicts(exact, components, verified)
        if config.write_index:
            self.run_index(keys, verdicts)
        self.remove("bands", "buckets", "shingles", "boilerplate")
        return verdicts

    def stage(self, name: str, settings: object, function: Callable[..., UnitResult]) -> Stage:
        return Stage(name=name, version=VERSIONS[name], settings=settings, function=function)

    def run_units(
        self, stage: Stage, units: Sequence[Unit], redo: frozenset[str] = frozenset()
    ) -> dict[str, Marker]:
        return run_stage(stage, units, self.output, self.executor, self.progress, redo)

    def remove(self, *stages: str) -> None:
        """Remove the folders of files that nothing needs any more."""
        for name in stages:
            shutil.rmtree(self.work / name, ignore_errors=True)

    def documents(self, unit: str) -> Path | None:
        """Return the unit's documents file, None where cleaning wrote none."""
        name = f"documents/{unit}.parquet"
        return self.output / name if name in dict(self.clean[unit].outputs) else None

    def document_bytes(self, unit: str) -> int:
        return dict(self.clean[unit].outputs).get(f"documents/{unit}.parquet", 0)

    def key_units(self) -> tuple[Stage, list[Unit]]:
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
        return self.run_units(*self.key_units())

    def make_bands(self) -> None:
        """Make those band keys again that were removed."""
        stage, units = self.key_units()
        lost = [u.name for u in units if u.arguments.bands and not u.arguments.bands.exists()]
        if lost:
            self.run_units(stage, units, frozenset(lost))

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
        return sum(part.num_documents for part in self.parts)

    def run_exact(self, keys: Mapping[str, Marker]) -> dict[str, Marker]:
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
        return self.run_units(self.stage("exact", [self.config.among_new], write_exact), units)

    def exact_path(self, name: str) -> Path:
        return self.work / "exact" / f"{name}.npy"

    def run_components(self, keys: Mapping[str, Marker], exact: Mapping[str, Marker]) -> Marker:
        exact_paths = tuple(self.exact_path(name) for name in exact)
        inputs = (
            *self.old_fingerprints,
            *(marker.fingerprint for marker in (*keys.values(), *exact.values())),
        )
        buckets = self.stage("buckets", [self.config.among_new], write_buckets)
        bands = [
            Unit(
                name=f"band-{band:05}",
                arguments=BucketsArguments(
                    parts=tuple(self.parts),
                    exact=exact_paths,
                    band=band,
                    among_new=self.config.among_new,
                    buckets=self.work / "buckets" / f"band-{band:05}.npy",
                ),
                inputs=inputs,
                size_bytes=8 * self.num_documents,
            )
            for band in range(self.num_bands)
        ]
        unit = Unit(
            name="components",
            arguments=ComponentsArguments(
                buckets=tuple(band.arguments.buckets for band in bands),
                num_documents=self.num_documents,
                num_partitions=self.config.partitions,
                candidates=self.work / "components" / "candidates.npy",
                members=self.work / "components" / "members.npy",
            ),
            inputs=tuple(unit_fingerprint(buckets, band) for band in bands),
        )
        stage = self.stage("components", [self.config.partitions], write_components)
        if not are_done(stage, [unit], self.output):
            if not are_done(buckets, bands, self.output):
                self.make_bands()
            members = self.run_units(buckets, bands)
            if not self.config.write_index:
                self.remove("bands")
            size = 8 * sum(marker.counts["members"] for marker in members.values())
            unit = replace(unit, size_bytes=size)
        marker = self.run_units(stage, [unit])["components"]
        self.remove("buckets", *([] if self.config.write_index else ["bands"]))
        return marker

    def run_verify(self, components: Marker, exact: Mapping[str, Marker]) -> dict[str, Marker]:
        config = self.config
        folder = self.work / "shingles"
        num_partitions = components.counts["partitions"]
        words = [config.seed, list(config.keep)]
        shingles = self.stage("shingles", words, write_shingles)
        lists = [
            Unit(
                name=part.name,
                arguments=ShinglesArguments(
                    part=part,
                    exact=tuple(self.exact_path(name) for name in exact),
                    candidates=self.work / "components" / "candidates.npy",
                    records=folder / f"{part.name}.npy",
                    values=folder / f"{part.name}.values",
                    num_partitions=num_partitions,
                    seed=config.seed,
                    keep=self.keep,
                    priority=priority_of(part.name),
                ),
                inputs=(components.fingerprint, *(m.fingerprint for m in exact.values())),
                size_bytes=part.documents.stat().st_size if part.documents else 0,
            )
            for part in self.parts
        ]
        starts = components.counts["member_starts"]
        units = []
        for partition in range(num_partitions):
            name = part_name(partition, num_partitions)
            arguments = VerifyArguments(
                shingles=folder,
                units=tuple(part.name for part in self.parts),
                boilerplate=(),
                members=self.work / "components" / "members.npy",
                member_range=(starts[partition], starts[partition + 1]),
                partition=partition,
                num_rank_words=count_rank_words(self.keep),
                threshold=config.threshold if config.verify else 0.0,
                payload_overlap=config.payload_overlap,
                among_new=config.among_new,
                all_pairs=config.copies == "drop_all",
                verified=self.work / "verify" / f"{name}.npy",
            )
            inputs = tuple(unit_fingerprint(shingles, unit) for unit in lists)
            units.append(Unit(name=name, arguments=arguments, inputs=(fingerprint(inputs),)))
        settings: list[object] = [config.threshold, config.verify, config.boilerplate_documents]
        settings += [config.payload_overlap, config.among_new, config.copies]
        stage = self.stage("verify", settings, write_verified)
        if not are_done(stage, units, self.output):
            found = self.run_units(shingles, lists)
            total = sum(marker.counts["shingles"] for marker in found.values())
            boilerplate = self.run_boilerplate(found, total)
            size = 8 * total // num_partitions
            units = [
                replace(
                    unit,
                    size_bytes=size,
                    arguments=replace(unit.arguments, boilerplate=boilerplate),
                )
                for unit in units
            ]
        markers = self.run_units(stage, units)
        self.remove("shingles", "boilerplate")
        _tell(markers)
        return markers

    def run_boilerplate(self, shingles: Mapping[str, Marker], total: int) -> tuple[Path, ...]:
        least = self.config.boilerplate_documents
        if not least or not self.config.verify:
            return ()
        num_ranges = max(1, -(-total // RANGE_SHINGLES))
        units = []
        for number in range(num_ranges):
            name = part_name(number, num_ranges)
            arguments = BoilerplateArguments(
                shingles=self.work / "shingles",
                units=tuple(shingles),
                range_number=number,
                num_ranges=num_ranges,
                min_documents=least,
                boilerplate=self.work / "boilerplate" / f"{name}.npy",
            )
            inputs = (fingerprint([marker.fingerprint for marker in shingles.values()]),)
            size_bytes = 8 * total // num_ranges
            units.append(Unit(name=name, arguments=arguments, inputs=inputs, size_bytes=size_bytes))
        self.run_units(self.stage("boilerplate", [least], write_boilerplate), units)
        return tuple(unit.arguments.boilerplate for unit in units)

    def run_verdicts(
        self,
        exact: Mapping[str, Marker],
        components: Marker | None,
        verified: Mapping[str, Marker],
    ) -> dict[str, Marker]:
        markers = [*exact.values(), *verified.values()]
        found = [marker.fingerprint for marker in markers]
        first_documents = {part.name: part.first_document for part in self.parts}
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
                    exact=tuple(self.exact_path(part) for part in exact),
                    candidates=(
                        self.work / "components" / "candidates.npy" if components else None
                    ),
                    verify=self.work / "verify" if components else None,
                    num_partitions=components.counts["partitions"] if components else 0,
                    drop_all=self.config.copies == "drop_all",
                    first_document=first_documents.get(name, 0),
                    verdicts=self.output / "verdicts" / f"{name}.parquet",
                ),
                inputs=(marker.fingerprint, fingerprint(found)),
                size_bytes=self.document_bytes(name),
            )
            for name, marker in self.clean.items()
        ]
        return self.run_units(self.stage("verdicts", [self.config.copies], write_verdicts), units)

    def run_index(self, keys: Mapping[str, Marker], verdicts: Mapping[str, Marker]) -> None:
        folder = self.output / "index"
        stage = self.stage("index", [self.num_bands], write_index_unit)
        units = [
            Unit(
                name=part.name,
                arguments=IndexArguments(
                    keys=part.keys,
                    bands=part.bands if self.num_bands else None,
                    verdicts=self.output / "verdicts" / f"{part.name}.parquet",
                    index_keys=folder / "keys" / f"{part.name}.npy",
                    index_bands=(folder / "bands" / f"{part.name}.npy" if self.num_bands else None),
                ),
                inputs=(keys[part.name].fingerprint, verdicts[part.name].fingerprint),
                size_bytes=8 * self.num_bands * part.num_documents,
            )
            for part in self.parts
            if not part.is_old
        ]
        if not are_done(stage, units, self.output):
            (folder / "index.json").unlink(missing_ok=True)
            self.make_bands()
        markers = self.run_units(stage, units)
        counts = [(name, marker.counts["documents"]) for name, marker in markers.items()]
        write_index_file(self.output, self.config, counts)


def _tell(markers: Mapping[str, Marker]) -> None:
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
