"""Scratch goes when it is done with, and comes back when a stage has to be done again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from gristmill.pipeline.config import PackConfig, PassagesConfig
from gristmill.pipeline.executors import LocalExecutor
from gristmill.pipeline.progress import Progress
from gristmill.pipeline.scratch import Chain
from gristmill.pipeline.stage import Stage, Unit, UnitResult

from .small_runs import content, run, write_corpus

CALLS: list[str] = []


@dataclass(frozen=True)
class Arguments:
    """Files of a unit: what it reads, and what it writes."""

    reads: Path | None
    scratch: Path | None
    output: Path | None


def work(arguments: Arguments) -> UnitResult:
    """Write the text of what is read, in capitals."""
    text = arguments.reads.read_text().upper() if arguments.reads else "text"
    written = [path for path in (arguments.scratch, arguments.output) if path]
    for path in written:
        CALLS.append(path.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return UnitResult(
        scratch=tuple([arguments.scratch] if arguments.scratch else []),
        outputs=tuple([arguments.output] if arguments.output else []),
    )


def chain_of_three(folder: Path, setting: int = 0) -> Chain:
    """Run one -> two -> three, of which three has an output and the others scratch."""
    CALLS.clear()
    one, two, three = folder / "work/one/a", folder / "work/two/a", folder / "three"
    with LocalExecutor(1) as executor:
        chain = Chain(folder, executor, Progress(quiet=True))
        for name, reads, arguments in (
            ("one", [], Arguments(None, one, None)),
            ("two", ["one"], Arguments(one, two, None)),
            ("three", ["two"], Arguments(two, None, three)),
        ):
            stage = Stage(
                name=name, version=1, settings=setting if name == "three" else 0, function=work
            )
            chain.run(stage, [Unit(name="a", arguments=arguments, inputs=())], reads)
        chain.remove("one", "two")
    return chain


def test_a_finished_run_without_its_scratch_has_nothing_to_do(tmp_path: Path) -> None:
    chain_of_three(tmp_path)
    assert CALLS == ["a", "a", "three"]
    assert not (tmp_path / "work/one/a").exists()

    chain_of_three(tmp_path)

    assert CALLS == []
    assert (tmp_path / "three").read_text() == "TEXT"


def test_what_a_later_stage_reads_is_made_again_from_the_beginning(tmp_path: Path) -> None:
    chain_of_three(tmp_path)

    chain_of_three(tmp_path, setting=1)

    assert CALLS == ["a", "a", "three"]
    assert not (tmp_path / "work/two/a").exists()


def test_only_what_is_missing_is_made_again(tmp_path: Path) -> None:
    chain_of_three(tmp_path)
    (tmp_path / "work/two").mkdir(exist_ok=True)
    (tmp_path / "work/two/a").write_text("TEXT")  # killed before it was removed

    chain_of_three(tmp_path, setting=1)

    assert CALLS == ["three"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, `kept` one with its scratch, and the corpus in `in`."""
    folder = tmp_path_factory.mktemp("scratch")
    config = replace(
        write_corpus(folder / "in", num_files=2), passages=PassagesConfig(spans="keep_first")
    )
    run(config, folder / "plain")
    run(config, folder / "kept", keep_scratch=True)
    return folder


def test_of_a_finished_run_no_scratch_is_left_and_all_else_is_the_same(finished: Path) -> None:
    plain, kept = content(finished / "plain"), content(finished / "kept")

    gone = kept.keys() - plain.keys()

    assert {name.split("/")[1] for name in gone} == {
        "keys", "bands", "exact", "buckets", "components", "shingles", "boilerplate", "verify",
        "passages", "repeats", "runs",
    }  # fmt: skip
    assert {name: kept[name] for name in plain} == plain
    left = [name for name in plain if name.startswith("work/") and not name.endswith(".json")]
    assert {name.split("/")[1] for name in left} == {"runs", "summary"}
    assert not [name for name in left if name.endswith(".bin")]


def test_another_setting_of_pack_finds_its_tokens_again(finished: Path) -> None:
    config = replace(
        write_corpus(finished / "in", num_files=2),
        passages=PassagesConfig(spans="keep_first"),
        pack=PackConfig(validation_fraction=0.3),
    )
    run(config, finished / "plain")
    run(config, finished / "fresh")

    assert content(finished / "plain") == content(finished / "fresh")
