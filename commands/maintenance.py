"""Looking after datasets that exist: merge, split, verify, repair. Arguments in, what was done out.

The work is that of `indexed_dataset`; here are the progress bars, the files that users write by
hand, and the words at the end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..config import ConfigError
from .arguments import MergeArguments, RepairArguments, SplitArguments, VerifyArguments


def merge(arguments: MergeArguments) -> str:
    """Merge prefixes; return what was done."""
    from ..indexed_dataset import DocumentFacts, DocumentNotFoundError
    from ..indexed_dataset import merge as run

    _require(arguments.inputs, "merge A B --output PREFIX")
    drop: dict[tuple[str, int], DocumentFacts | None] = {}
    lines = []
    if arguments.drop_ids:
        from ..pipeline.takedown import read_takedown

        folders = [Path(folder) for folder in arguments.verdicts] or _verdicts(arguments.inputs)
        takedown = read_takedown(Path(arguments.drop_ids), folders)
        drop = takedown.drop
        lines += [f"already left out by the run: {name} ({why})" for name, why in takedown.absent]
        lines += [f"not known: {name}" for name in takedown.unknown]
        if takedown.unknown and not arguments.allow_missing_ids:
            raise DocumentNotFoundError(
                f"{len(takedown.unknown)} of the documents that {arguments.drop_ids} names are not "
                f"in the verdicts: {', '.join(takedown.unknown[:5])}. Nothing was written. Check "
                "the ids, or allow them with --allow-missing-ids"
            )
    with _progress("merge", _num_bytes(arguments.inputs)) as show:
        report = run(
            arguments.inputs,
            arguments.output,
            drop_origins=drop,
            allow_missing=arguments.allow_missing_ids,
            overwrite=arguments.overwrite,
            progress=show,
        )
    lines += [f"in none of the inputs: {file} {offset}" for file, offset in report.missing]
    lines += [f"note: {note}" for note in report.notes]
    dropped = f" without {_count(report.num_dropped, 'document')}" if arguments.drop_ids else ""
    lines.append(
        f"{_count(len(arguments.inputs), 'prefix')}{dropped} -> {arguments.output}: "
        f"{_count(report.manifest.num_documents, 'document')}, "
        f"{_count(report.manifest.num_tokens, 'token')}"
    )
    return _text(lines)


def split(arguments: SplitArguments) -> str:
    """Divide a prefix; return what was done."""
    from ..indexed_dataset import divide

    with _progress("split", _num_bytes([arguments.prefix])) as show:
        parts = divide(
            arguments.prefix,
            arguments.output,
            num_shards=arguments.num_shards or None,
            max_tokens=arguments.max_tokens or None,
            shares=_shares(arguments.shares) or None,
            overwrite=arguments.overwrite,
            progress=show,
        )
    return _text(
        f"{part.prefix}: {_count(part.manifest.num_documents, 'document')}, "
        f"{_count(part.manifest.num_tokens, 'token')}"
        for part in parts
    )


def verify(arguments: VerifyArguments) -> tuple[str, bool]:
    """Check prefixes; return a table with every problem, and whether there is none."""
    from ..indexed_dataset import verify as check

    _require(arguments.paths, "verify PREFIX_OR_FOLDER")
    prefixes, problems = _find_prefixes(arguments.paths)
    lines: list[str] = []
    with _progress("verify", _num_bytes(prefixes) if arguments.full else 0) as show:
        done = 0

        def advance(num_bytes: int) -> None:
            nonlocal done
            done += num_bytes
            show(done, 0)

        for prefix in prefixes:
            report = check(prefix, arguments.full, progress=advance)
            state = "good" if report.ok else "WRONG"
            lines.append(
                f"{state:6} {prefix}: {_count(report.num_documents, 'document')}, "
                f"{_count(report.num_tokens, 'token')}"
            )
            lines += [f"       {problem}" for problem in report.problems]
            lines += [f"       not checked: {what}" for what in report.unchecked]
            problems += report.problems
    lines += [f"WRONG  {problem}" for problem in problems if problem not in "\n".join(lines)]
    how = "in full" if arguments.full else "without reading tokens"
    lines.append(
        f"{_count(len(prefixes), 'prefix')} checked {how}: {_count(len(problems), 'problem')}"
    )
    return _text(lines), not problems


def repair(arguments: RepairArguments) -> str:
    """Make indexes again; return what was done."""
    from ..indexed_dataset import repair as run

    _require(arguments.prefixes, "repair PREFIX")
    lines = []
    for prefix in arguments.prefixes:
        with _progress("repair", _num_bytes([prefix])) as show:
            report = run(prefix, progress=show)
        done = "written again" if report.written else "was right already"
        documents = _count(report.num_documents, "document")
        lines.append(f"{report.prefix}.idx {done}: {documents}")
    return _text(lines)


def _find_prefixes(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the prefixes that are named or lie below the folders, and what is missing there."""
    from ..indexed_dataset import DatasetManifest, IndexedDatasetError, find_prefixes
    from ..indexed_dataset.paths import strip_suffix

    prefixes: dict[str, None] = {}
    problems = []
    for path in paths:
        if not Path(path).is_dir():
            prefixes[strip_suffix(path)] = None
            continue
        found = {strip_suffix(file) for file in Path(path).rglob("*.idx")}
        for folder in {Path(prefix).parent for prefix in found}:
            try:
                find_prefixes(folder)  # says when a shard is missing
            except IndexedDatasetError as error:
                problems.append(str(error))
        for file in Path(path).rglob("*.bin"):  # of a dataset whose .idx was lost
            try:
                if file.with_suffix(".json").exists():
                    DatasetManifest.load(file.with_suffix(".json"))
                    found.add(strip_suffix(file))
            except IndexedDatasetError:
                pass  # other programs have .bin and .json files too
        if not found:
            raise ConfigError(f"there is no prefix in {path} or below it")
        prefixes |= dict.fromkeys(sorted(found))
    return list(prefixes), problems


def _shares(words: Sequence[str]) -> Mapping[str, float]:
    shares = {}
    for word in words:
        name, _, share = word.partition("=")
        try:
            shares[name] = float(share)
        except ValueError:
            raise ConfigError(f"{word} is not NAME=SHARE, as in train=0.99") from None
    return shares


def _verdicts(prefixes: Sequence[str]) -> list[Path]:
    """Return the verdicts of the runs whose data/train or data/validation the prefixes are in."""
    folders = [Path(os.path.abspath(prefix)).parent.parent.parent for prefix in prefixes]
    return [run / "verdicts" for run in dict.fromkeys(folders) if (run / "verdicts").is_dir()]


def _num_bytes(prefixes: Sequence[str]) -> int:
    """Return the size of all .bin files that exist."""
    from ..indexed_dataset.paths import prefix_paths

    files = [prefix_paths(prefix).bin for prefix in prefixes]
    return sum(file.stat().st_size for file in files if file.exists())


@contextmanager
def _progress(name: str, num_bytes: int) -> Iterator[Callable[[int, int], None]]:
    """Show a bar of `num_bytes`; the function yielded takes the bytes done and those in all."""
    from ..pipeline.progress import Progress

    with Progress(quiet=num_bytes == 0).stage(name, num_bytes, num_units=1, num_skipped=0) as bar:

        def show(done: int, total: int) -> None:
            # What is written may be wider than what is read: the share of it counts.
            bar.update(done * num_bytes // total if total else done)

        yield show
        bar.unit_done()


def _require(names: Sequence[str], usage: str) -> None:
    if not names:
        raise ConfigError(f"no prefix is named: gristmill {usage}")


def _count(number: int, noun: str) -> str:
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun}es" if noun.endswith("x") else f"{number:,} {noun}s"


def _text(lines: Sequence[str] | Iterator[str]) -> str:
    return "\n".join(lines) + "\n"
