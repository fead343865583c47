"""Kills, races and full disks while writing, merging and repairing: never a wrong dataset."""

import multiprocessing
import os
import resource
from pathlib import Path

import numpy as np
import pytest

from gristmill.indexed_dataset import (
    IndexedDataset,
    IndexedDatasetBuilder,
    IndexedDatasetError,
    PrefixBusyError,
    PrefixExistsError,
    PrefixNotFoundError,
    RepairError,
    copying,
    merge,
    repair,
    verify,
)
from gristmill.indexed_dataset.atomic import DiskFullError

OLD = [[1, 2, 3, 0], [4, 5, 0]]
A, B = [[9, 9, 0], [8, 0]], [[7, 0]]
NEW = A + B  # as many tokens as OLD: a mixture of their files could open
CALLS = ("open", "replace", "unlink", "fsync", "pwrite", "preadv", "copy_file_range")


def write(prefix, documents, overwrite=False):
    streams = {"mask": "uint8"}
    with IndexedDatasetBuilder(
        prefix, vocab_size=10, overwrite=overwrite, streams=streams
    ) as builder:
        for number, document in enumerate(documents):
            mask = [document[0]] * len(document)
            builder.add_document(document, origin=(0, number), streams={"mask": mask})
        builder.finalize(origin_files=["a"], eod_id=0)
    return prefix


def content(prefix):
    return [document.tolist() for document in IndexedDataset(prefix)[:]]


def killed_at(call, work):
    """Run `work` in a child that dies at its n-th system call; say whether it died."""
    child = os.fork()
    if child == 0:
        count = 0

        def dying(function):
            def wrapper(*arguments, **named):
                nonlocal count
                count += 1
                if count == call:
                    os._exit(9)
                return function(*arguments, **named)

            return wrapper

        try:
            for name in CALLS:
                setattr(os, name, dying(getattr(os, name)))
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


def found_at(prefix):
    """What opens there, fully verified; None if nothing does."""
    try:
        documents = content(prefix)
    except PrefixNotFoundError:
        return None
    assert verify(prefix, full=True).problems == ()
    return documents


@pytest.mark.slow
@pytest.mark.parametrize("kernel_copy", [True, False])
@pytest.mark.parametrize("target", ["new", "existing", "input"])
def test_a_kill_in_any_phase_of_a_merge_leaves_the_old_none_or_the_new(
    tmp_path, monkeypatch, target, kernel_copy
):
    if not kernel_copy:
        monkeypatch.setattr(copying._Plan, "known_digest", lambda *arguments: None)
    seen, call = [], 1
    while True:
        folder = tmp_path / str(call)
        inputs = [write(folder / "a", A), write(folder / "b", B)]
        output = folder / "a" if target == "input" else folder / "out"
        if target == "existing":
            write(output, OLD)
        before = {"new": None, "existing": OLD, "input": A}[target]

        def work(inputs=inputs, output=output):
            merge(inputs, output, overwrite=target != "new")

        died = killed_at(call, work)
        found = found_at(output)
        seen.append(found)
        assert found in (before, None, NEW)
        assert died or found == NEW
        assert content(folder / "b") == B
        if not died:
            break
        if target != "input":  # the next run cleans up and succeeds
            merge(inputs, output, overwrite=found is not None)
            assert found_at(output) == NEW
            assert not [name for name in os.listdir(folder) if ".tmp-" in name]
        call += 1

    assert call > 15
    assert NEW in seen
    assert before in seen


def test_a_kill_in_any_phase_of_a_repair_leaves_the_right_index_or_none(tmp_path):
    call = 1
    while True:
        prefix = write(tmp_path / str(call) / "data", NEW)
        Path(f"{prefix}.idx").unlink()
        died = killed_at(call, lambda prefix=prefix: repair(prefix))
        found = found_at(prefix)
        assert found in (None, NEW)
        assert died or found == NEW
        repair(prefix)
        assert found_at(prefix) == NEW
        if not died:
            break
        call += 1
    assert call > 3


def compete(prefix, value, start, answers):
    start.wait()
    try:
        write(prefix, [[value] * 50 + [0]] * 200, overwrite=value % 2 == 0)
        answers.put((value, "written"))
    except (PrefixBusyError, PrefixExistsError) as error:
        answers.put((value, type(error).__name__))


def test_processes_that_write_one_prefix_leave_that_of_one_of_them(tmp_path):
    context = multiprocessing.get_context("fork")
    for number in range(5):
        prefix = tmp_path / str(number) / "data"
        start, answers = context.Barrier(4), context.Queue()
        children = [
            context.Process(target=compete, args=(prefix, value, start, answers))
            for value in (1, 2, 3, 4)
        ]
        for child in children:
            child.start()
        outcomes = dict(answers.get(timeout=60) for _ in children)
        for child in children:
            child.join()
        winners = [value for value, outcome in outcomes.items() if outcome == "written"]
        documents = found_at(prefix)

        assert winners
        assert documents is not None
        assert documents[0][0] in winners
        assert documents == [[documents[0][0]] * 50 + [0]] * 200
        assert not [name for name in os.listdir(prefix.parent) if ".tmp-" in name]


@pytest.mark.parametrize("target", ["merge", "build"])
def test_a_file_that_does_not_fit_is_explained_and_leaves_nothing(tmp_path, target):
    """The limit of a file's size stands for the disk's: the kernel really refuses the write."""
    tokens = np.ones(3 << 20, np.uint8)
    for name in "ab":
        with IndexedDatasetBuilder(tmp_path / name, dtype="uint8") as builder:
            builder.add_documents(tokens, [len(tokens)])

    def build():
        with IndexedDatasetBuilder(tmp_path / "out", dtype="uint8") as builder:
            for _ in range(4):
                builder.add_documents(tokens, [len(tokens)])

    def merge_both():
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 << 20, limits[1]))
    try:
        with pytest.raises(DiskFullError, match=r"size is reached .* while writing .*out\.bin"):
            {"merge": merge_both, "build": build}[target]()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert list(tmp_path.glob("out*")) == []


def test_a_prefix_that_is_being_written_is_neither_merged_into_nor_repaired(tmp_path):
    write(tmp_path / "a", A)
    with IndexedDatasetBuilder(tmp_path / "out", vocab_size=10) as builder:
        builder.add_document([1])
        with pytest.raises(PrefixBusyError):
            merge([tmp_path / "a"], tmp_path / "out")
        with pytest.raises(RepairError, match="is missing or has no checksums"):
            repair(tmp_path / "out")
    assert content(tmp_path / "out") == [[1]]


def test_an_input_cut_off_while_it_is_merged_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(copying._Plan, "known_digest", lambda *arguments: None)
    write(tmp_path / "a", A)
    real = copying.copy_tokens

    def cut(*arguments, **named):
        os.truncate(tmp_path / "a.bin", 4)
        return real(*arguments, **named)

    monkeypatch.setattr("gristmill.indexed_dataset.assembling.copy_tokens", cut)
    with pytest.raises(IndexedDatasetError, match="was cut off while it was copied"):
        merge([tmp_path / "a"], tmp_path / "out")
    assert list(tmp_path.glob("out*")) == []
