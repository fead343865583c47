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

What stages leave for later ones is removed as soon as these are done (keys after 3, buckets after
4, shingles after 7, the rest after 8), unless it is to be kept. A stage that must be done again
makes it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .. import kernels
from .config import PreprocessConfig
from .dedup_index import (
    IndexArguments,
    fingerprint_of,
    open_indices,
    write_index_file,
    write_index_unit,
)
from .dedup_near import run_components, run_verify
from .dedup_run import VERSIONS, DedupRun
from .dedup_verdicts import VerdictsArguments, write_verdicts
from .executors import Executor
from .progress import Progress
from .shards import alone
from .stage import Marker, Unit, are_done, fingerprint

__all__ = ["VERSIONS", "run"]


def run(
    config: PreprocessConfig,
    output: Path,
    clean_markers: Mapping[str, Marker],
    executor: Executor,
    progress: Progress,
    keep_scratch: bool = False,
) -> dict[str, Marker]:
    """Run the stages of dedup; return the markers of the verdicts, one for each clean unit.

    Args:
        config: `config.dedup` is used.
        output: output folder of the run.
        clean_markers: markers of the stage `clean`, in the order that decides which copy is first.
        executor, progress: where units run and how that is shown.
        keep_scratch: leave the files that only these stages read.

    Raises:
        ValueError: an index in `dedup.against` is missing or was made with other settings.
    """
    shared = DedupRun(config.dedup, output, clean_markers, executor, progress, keep_scratch)
    settings = config.dedup
    if not (settings.exact or settings.near):
        return _run_verdicts(shared, {}, None, {})
    if shared.output.resolve() in [Path(folder).resolve() for folder in settings.against]:
        raise ValueError(
            f"dedup.against names {shared.output}, the output folder itself: every document "
            "would be a copy of its own. Use another output folder"
        )
    old = open_indices(settings)
    shared.old_fingerprints = [fingerprint_of(part) for part in old]
    kernels.warm_kernels("dedup")  # workers load what is compiled here once
    keys = shared.run_keys()
    shared.number_parts(old, keys)
    exact = shared.run_exact(keys)
    components, verified = None, {}
    if settings.near:
        components = run_components(shared, keys, exact)
        verified = run_verify(shared, components, exact)
    verdicts = _run_verdicts(shared, exact, components, verified)
    if settings.write_index:
        _run_index(shared, keys, verdicts)
    shared.chain.remove(*(name for name in VERSIONS if name != "verdicts"))
    return verdicts


def _run_verdicts(
    run: DedupRun,
    exact: Mapping[str, Marker],
    components: Marker | None,
    verified: Mapping[str, Marker],
) -> dict[str, Marker]:
    markers = [*exact.values(), *verified.values()]
    found = [marker.fingerprint for marker in markers]
    first_documents = {part.name: part.first_document for part in run.parts}
    units = [
        Unit(
            name=name,
            arguments=VerdictsArguments(
                documents=run.documents(name),
                rejected=tuple(
                    run.output / path for path, _ in marker.outputs if path.startswith("rejected/")
                ),
                exact=tuple(run.exact_path(part) for part in exact),
                candidates=(run.work / "components" / "candidates.npy" if components else None),
                verify=run.work / "verify" if components else None,
                num_partitions=components.counts["partitions"] if components else 0,
                drop_all=run.config.copies == "drop_all",
                first_document=first_documents.get(name, 0),
                verdicts=run.output / "verdicts" / f"{name}.parquet",
            ),
            inputs=(marker.fingerprint, fingerprint(found)),
            size_bytes=run.document_bytes(name),
        )
        for name, marker in run.clean.items()
    ]
    stage = run.stage("verdicts", [run.config.copies], write_verdicts)
    return run.chain.run(stage, units, ["exact", "components", "verify"])


def _run_index(run: DedupRun, keys: Mapping[str, Marker], verdicts: Mapping[str, Marker]) -> None:
    folder = run.output / "index"
    stage = run.stage("index", [run.num_bands], write_index_unit)
    units = [
        Unit(
            name=part.name,
            arguments=IndexArguments(
                keys=part.keys,
                bands=part.bands if run.num_bands else None,
                verdicts=run.output / "verdicts" / f"{part.name}.parquet",
                index_keys=folder / "keys" / f"{part.name}.npy",
                index_bands=(folder / "bands" / f"{part.name}.npy" if run.num_bands else None),
            ),
            inputs=(keys[part.name].fingerprint, verdicts[part.name].fingerprint),
            size_bytes=8 * run.num_bands * part.num_documents,
        )
        for part in run.parts
        if not part.is_old
    ]
    if not are_done(stage, units, run.output):
        (folder / "index.json").unlink(missing_ok=True)
    markers = run.chain.run(stage, units, ["keys"])
    counts = [(name, marker.counts["documents"]) for name, marker in markers.items()]
    with alone(run.executor.shard, run.output):
        write_index_file(run.output, run.config, counts)
