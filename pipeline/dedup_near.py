"""Keys flow in; groups of candidates, and which of them are verified near copies, flow out.

The stages buckets, components, shingles, boilerplate and verify: how they follow each other, which
files they read of each other, and when these are removed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from .dedup_boilerplate import RANGE_SHINGLES, BoilerplateArguments, write_boilerplate
from .dedup_buckets import BucketsArguments, write_buckets
from .dedup_components import ComponentsArguments, components_memory, write_components
from .dedup_layout import part_name
from .dedup_preference import count_rank_words, priority_of
from .dedup_run import DedupRun
from .dedup_shingles import ShinglesArguments, write_shingles
from .dedup_verify import VerifyArguments, write_verified
from .stage import Marker, Unit, fingerprint
from .unit_runs import UNIT_BYTES

logger = logging.getLogger(__name__)


def run_components(
    run: DedupRun, keys: Mapping[str, Marker], exact: Mapping[str, Marker]
) -> Marker:
    """Find groups of candidates: buckets, then components."""
    exact_paths = tuple(run.exact_path(name) for name in exact)
    inputs = (
        *run.old_fingerprints,
        *(marker.fingerprint for marker in (*keys.values(), *exact.values())),
    )
    buckets = run.stage("buckets", [run.config.among_new], write_buckets)
    bands = [
        Unit(
            name=f"band-{band:05}",
            arguments=BucketsArguments(
                parts=tuple(run.parts),
                exact=exact_paths,
                band=band,
                among_new=run.config.among_new,
                buckets=run.work / "buckets" / f"band-{band:05}.npy",
            ),
            inputs=inputs,
            size_bytes=8 * run.num_documents,
        )
        for band in range(run.num_bands)
    ]
    members = run.chain.run(buckets, bands, ["keys", "exact"])
    if not run.config.write_index:
        run.chain.remove("keys")
    unit = Unit(
        name="components",
        arguments=ComponentsArguments(
            buckets=tuple(band.arguments.buckets for band in bands),
            num_documents=run.num_documents,
            num_partitions=run.config.partitions,
            candidates=run.work / "components" / "candidates.npy",
            members=run.work / "components" / "members.npy",
        ),
        inputs=tuple(marker.fingerprint for marker in members.values()),
        size_bytes=8 * sum(marker.counts["members"] for marker in members.values()),
        memory_bytes=max(UNIT_BYTES, components_memory(run.num_documents)),
    )
    stage = run.stage("components", [run.config.partitions], write_components)
    marker = run.chain.run(stage, [unit], ["buckets"])["components"]
    run.chain.remove("buckets")
    return marker


def run_verify(run: DedupRun, components: Marker, exact: Mapping[str, Marker]) -> dict[str, Marker]:
    """Compare candidates by their shingles."""
    config = run.config
    folder = run.work / "shingles"
    num_partitions = components.counts["partitions"]
    words = [config.seed, list(config.keep)]
    shingles = run.stage("shingles", words, write_shingles)
    lists = [
        Unit(
            name=part.name,
            arguments=ShinglesArguments(
                part=part,
                exact=tuple(run.exact_path(name) for name in exact),
                candidates=run.work / "components" / "candidates.npy",
                records=folder / f"{part.name}.npy",
                values=folder / f"{part.name}.values",
                num_partitions=num_partitions,
                seed=config.seed,
                keep=run.keep,
                priority=priority_of(part.name),
            ),
            inputs=(components.fingerprint, *(m.fingerprint for m in exact.values())),
            size_bytes=part.documents.stat().st_size if part.documents else 0,
        )
        for part in run.parts
    ]
    found = run.chain.run(shingles, lists, ["components", "exact"])
    total = sum(marker.counts["shingles"] for marker in found.values())
    boilerplate = run_boilerplate(run, found, total)
    inputs = tuple(marker.fingerprint for marker in found.values())
    starts = components.counts["member_starts"]
    units = []
    for partition in range(num_partitions):
        name = part_name(partition, num_partitions)
        arguments = VerifyArguments(
            shingles=folder,
            units=tuple(part.name for part in run.parts),
            boilerplate=boilerplate,
            members=run.work / "components" / "members.npy",
            member_range=(starts[partition], starts[partition + 1]),
            partition=partition,
            num_rank_words=count_rank_words(run.keep),
            threshold=config.threshold if config.verify else 0.0,
            payload_overlap=config.payload_overlap,
            among_new=config.among_new,
            all_pairs=config.copies == "drop_all",
            verified=run.work / "verify" / f"{name}.npy",
        )
        units.append(
            Unit(
                name=name,
                arguments=arguments,
                inputs=(fingerprint(inputs),),
                size_bytes=8 * total // num_partitions,
            )
        )
    settings: list[object] = [config.threshold, config.verify, config.boilerplate_documents]
    settings += [config.payload_overlap, config.among_new, config.copies]
    stage = run.stage("verify", settings, write_verified)
    markers = run.chain.run(stage, units, ["components", "shingles", "boilerplate"])
    run.chain.remove("shingles", "boilerplate")
    _tell(markers)
    return markers


def run_boilerplate(run: DedupRun, shingles: Mapping[str, Marker], total: int) -> tuple[Path, ...]:
    """Count frequent shingles; return the files that hold them, by ascending value."""
    least = run.config.boilerplate_documents
    if not least or not run.config.verify:
        return ()
    num_ranges = max(1, -(-total // RANGE_SHINGLES))
    units = []
    for number in range(num_ranges):
        name = part_name(number, num_ranges)
        arguments = BoilerplateArguments(
            shingles=run.work / "shingles",
            units=tuple(shingles),
            range_number=number,
            num_ranges=num_ranges,
            min_documents=least,
            boilerplate=run.work / "boilerplate" / f"{name}.npy",
        )
        inputs = (fingerprint([marker.fingerprint for marker in shingles.values()]),)
        size_bytes = 8 * total // num_ranges
        units.append(Unit(name=name, arguments=arguments, inputs=inputs, size_bytes=size_bytes))
    run.chain.run(run.stage("boilerplate", [least], write_boilerplate), units, ["shingles"])
    return tuple(unit.arguments.boilerplate for unit in units)


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
