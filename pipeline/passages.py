"""Kept documents in; which stretches of their texts repeat others and are left out, out.

passages -> repeats -> cuts. What stands in many documents of a source is a template, not text; what
stands at length in two documents is learned twice. Nothing is read at random and no text is held:

1. passages: hash and place of each line, paragraph and chosen stretch (parallel by unit);
2. repeats: equal hashes brought together by sorting; which of their places go (parallel by range
   of hashes);
3. cuts: the ranges of each unit's documents, merged (parallel by unit). Passages of evaluation
   data, where filters.decontamination cuts them, join here.

`cuts/UNIT.parquet` is what `tokenize` applies on its way down; documents/ stays as it is, so every
cut can be looked up. A document of which nothing is left is dropped as `repeated_passages`.

Long spans are found by winnowing (see `kernels/winnowing.py`): a passage of `span_bytes` that
stands earlier shares a chosen stretch of 4/5 of that length with it. What is cut are such
stretches, joined where they overlap: every byte cut stands in a stretch that is found earlier to
the byte, nothing shorter than 4/5 of `span_bytes` is cut, and up to a fifth may stay at either end.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from .. import kernels
from . import contamination
from .config import PassagesConfig, PreprocessConfig
from .executors import Executor
from .passage_cuts import CutsArguments, write_cuts
from .passage_places import PlacesArguments, write_places
from .passage_repeats import RECORD_BYTES, RepeatsArguments, write_repeats
from .progress import Progress
from .scratch import Chain
from .stage import Marker, Stage, Unit, fingerprint

logger = logging.getLogger(__name__)

# Raised by hand when a stage's output changes.
PASSAGES_VERSION = 1
REPEATS_VERSION = 1
CUTS_VERSION = 2
VERSIONS = {"passages": PASSAGES_VERSION, "repeats": REPEATS_VERSION, "cuts": CUTS_VERSION}

PART_BYTES = 200_000_000
"""Hashes and places that one unit of `repeats` sorts in memory, about."""


def is_on(config: PassagesConfig) -> bool:
    """Return whether anything is looked for."""
    return any(mode != "off" for mode in (config.lines, config.paragraphs, config.spans))


def run(
    config: PreprocessConfig,
    output: Path,
    verdict_markers: Mapping[str, Marker],
    executor: Executor,
    progress: Progress,
    keep_scratch: bool = False,
) -> dict[str, Marker]:
    """Run the three stages; return the markers of `cuts` by unit, none where all is off.

    Counts of a marker: `rows` [kind, ranges, bytes] of what is cut from the unit's documents.
    What only these stages read is removed, unless it is to be kept.
    """
    settings = config.passages
    is_cut = contamination.is_cut(config.filters)
    if not (is_on(settings) or is_cut):
        return {}
    places: dict[str, Marker] = {}
    repeats: dict[str, Marker] = {}
    chain = Chain(output, executor, progress, keep=keep_scratch)
    if is_on(settings):
        places, repeats = _find_repeats(settings, output, verdict_markers, chain)
    found = fingerprint([marker.fingerprint for marker in repeats.values()])
    cuts = chain.run(
        Stage(name="cuts", version=CUTS_VERSION, settings=[is_cut], function=write_cuts),
        [
            Unit(
                name=name,
                arguments=CutsArguments(
                    documents=output / "documents" / f"{name}.parquet",
                    unit=number,
                    repeats=tuple(output / "work" / "repeats" / f"{part}.npy" for part in repeats),
                    contaminated=_ranges(output, name) if is_cut else None,
                    cuts=output / "cuts" / f"{name}.parquet",
                ),
                inputs=(places.get(name, marker).fingerprint, marker.fingerprint, found),
            )
            for number, (name, marker) in enumerate(verdict_markers.items())
        ],
        ["repeats"],
    )
    chain.remove("passages", "repeats")
    _tell(cuts)
    return cuts


def _ranges(output: Path, name: str) -> Path | None:
    """Return the ranges of evaluation data of a unit; None: it has no documents."""
    path = contamination.ranges_file(output, name)
    return path if path.is_file() else None


def _find_repeats(
    settings: PassagesConfig,
    output: Path,
    verdict_markers: Mapping[str, Marker],
    chain: Chain,
) -> tuple[dict[str, Marker], dict[str, Marker]]:
    """Run the first two stages; return their markers."""
    kernels.warm_kernels("passages")
    work = output / "work"
    places = chain.run(
        Stage(
            name="passages",
            version=PASSAGES_VERSION,
            settings=[
                settings.lines != "off",
                settings.paragraphs != "off",
                settings.spans != "off",
                settings.min_bytes,
                settings.span_bytes,
            ],
            function=write_places,
        ),
        [
            Unit(
                name=name,
                arguments=PlacesArguments(
                    documents=output / "documents" / f"{name}.parquet",
                    verdicts=output / "verdicts" / f"{name}.parquet",
                    places=work / "passages" / name,
                    config=settings,
                ),
                inputs=(marker.fingerprint,),
                size_bytes=_size(output / "documents" / f"{name}.parquet"),
            )
            for name, marker in verdict_markers.items()
        ],
    )
    num_records = sum(marker.counts["places"] for marker in places.values())
    num_parts = 1 + num_records * RECORD_BYTES // PART_BYTES
    repeats = chain.run(
        Stage(
            name="repeats",
            version=REPEATS_VERSION,
            settings=[settings.lines, settings.paragraphs, settings.max_documents],
            function=write_repeats,
        ),
        [
            Unit(
                name=f"part-{part:05}-of-{num_parts:05}",
                arguments=RepeatsArguments(
                    units=tuple(work / "passages" / name for name in places),
                    part=part,
                    num_parts=num_parts,
                    config=settings,
                    repeats=work / "repeats" / f"part-{part:05}-of-{num_parts:05}.npy",
                ),
                inputs=(fingerprint([marker.fingerprint for marker in places.values()]),),
                size_bytes=num_records * RECORD_BYTES // num_parts,
            )
            for part in range(num_parts)
        ],
        ["passages"],
    )
    return places, repeats


def _tell(cuts: Mapping[str, Marker]) -> None:
    ranges: Counter[str] = Counter()
    num_bytes: Counter[str] = Counter()
    for marker in cuts.values():
        for kind, count, size in marker.counts["rows"]:
            ranges[kind] += count
            num_bytes[kind] += size
    for kind in sorted(ranges):
        logger.info(
            "%s %s are left out of the token files, %.1f MB of text",
            f"{ranges[kind]:,}",
            "passages of evaluation data" if kind == "evaluation" else f"repeated {kind}s",
            num_bytes[kind] / 1e6,
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
