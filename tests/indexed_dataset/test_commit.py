"""A prefix appears whole or not at all: kills, full disks, two writers, existing files."""

import errno
import os
import shutil

import numpy as np
import pytest

from gristmill.indexed_dataset import (
    IndexedDataset,
    IndexedDatasetBuilder,
    IndexedDatasetError,
    ManifestError,
    PrefixBusyError,
    PrefixExistsError,
    PrefixNotFoundError,
    verify,
)
from gristmill.indexed_dataset.atomic import DiskFullError

OLD = [[1, 2, 3], [4, 5]]
NEW = [[9, 9], [8, 8, 7]]  # as many documents and tokens: a mixture would open


def write(prefix, documents, overwrite=False):
    with IndexedDatasetBuilder(prefix, vocab_size=10, overwrite=overwrite) as builder:
        for number, document in enumerate(documents):
            builder.add_document(document, origin=(0, number))
        builder.finalize(origin_files=["a"])


def content(prefix):
    return [document.tolist() for document in IndexedDataset(prefix)[:]]


def killed_at(call, prefix, overwrite):
    """Write NEW in a child that dies at its n-th call that changes the folder; say if it died."""
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
            for name in ("open", "replace", "unlink", "fsync"):
                setattr(os, name, dying(getattr(os, name)))
            write(prefix, NEW, overwrite)
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_kill_in_any_phase_leaves_the_old_prefix_none_or_the_new_one(tmp_path, overwrite):
    seen, call = set(), 1
    while True:
        prefix = tmp_path / str(call) / "data"
        if overwrite:
            write(prefix, OLD)
        died = killed_at(call, prefix, overwrite)
        try:
            found = content(prefix)
            assert verify(prefix, full=True).ok
        except PrefixNotFoundError:
            found = None
        seen.add(str(found))
        assert found in ((OLD, NEW, None) if overwrite else (NEW, None))
        assert died or found == NEW
        write(prefix, NEW, overwrite=found is not None)  # the next run cleans up and succeeds
        assert content(prefix) == NEW
        assert not [name for name in os.listdir(prefix.parent) if ".tmp-" in name]
        if not died:
            break
        call += 1

    assert call > 12
    assert seen == {str(state) for state in ((OLD, NEW, None) if overwrite else (NEW, None))}


def test_nothing_is_left_of_a_block_that_fails(tmp_path):
    def fail():
        with IndexedDatasetBuilder(tmp_path / "data", vocab_size=10) as builder:
            builder.add_document([1], origin=(0, 0))
            raise RuntimeError("a fault in the caller")

    with pytest.raises(RuntimeError, match="a fault in the caller"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_prefix_is_refused_and_untouched(tmp_path):
    write(tmp_path / "data", OLD)
    with pytest.raises(PrefixExistsError, match=r"data exists already \(data.idx, data.bin\)"):
        IndexedDatasetBuilder(tmp_path / "data.bin", vocab_size=10)

    assert content(tmp_path / "data") == OLD
    assert len(list(tmp_path.iterdir())) == 4


def test_a_bin_without_index_is_not_overwritten_unasked(tmp_path):
    (tmp_path / "data.bin").write_bytes(b"somebody's")
    with pytest.raises(PrefixExistsError, match=r"data\.bin"):
        IndexedDatasetBuilder(tmp_path / "data", vocab_size=10)

    assert (tmp_path / "data.bin").read_bytes() == b"somebody's"


def test_the_old_prefix_stays_readable_until_the_new_one_is_complete(tmp_path):
    write(tmp_path / "data", OLD)
    with IndexedDatasetBuilder(tmp_path / "data", vocab_size=10, overwrite=True) as builder:
        builder.add_document([9])
        assert content(tmp_path / "data") == OLD

    assert content(tmp_path / "data") == [[9]]
    assert not (tmp_path / "data.origin").exists()  # the new documents have no origins


def test_a_second_writer_of_the_same_prefix_is_refused(tmp_path):
    with IndexedDatasetBuilder(tmp_path / "data", vocab_size=10) as builder:
        with pytest.raises(PrefixBusyError, match="being written by another process"):
            IndexedDatasetBuilder(tmp_path / "data", vocab_size=10, overwrite=True)
        builder.add_document([1])

    assert content(tmp_path / "data") == [[1]]


def test_a_prefix_that_appears_meanwhile_is_not_overwritten(tmp_path):
    write(tmp_path / "other", OLD)
    with IndexedDatasetBuilder(tmp_path / "data", vocab_size=10) as builder:
        builder.add_document([1])
        for suffix in (".bin", ".idx", ".json"):
            shutil.copy(tmp_path / f"other{suffix}", tmp_path / f"data{suffix}")
        with pytest.raises(PrefixExistsError):
            builder.finalize()

    assert content(tmp_path / "data") == OLD


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk_is_explained_and_leaves_nothing(tmp_path, monkeypatch, call):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    builder = IndexedDatasetBuilder(tmp_path / "data", vocab_size=10)
    if call == "write":
        with open("/dev/full", "wb", buffering=0) as stream:
            builder._files._files["bin"] = stream
            with pytest.raises(DiskFullError, match=r"no space left while writing .*data\.bin"):
                builder.add_document([1])
    else:
        builder.add_document([1])
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(DiskFullError, match="no space left while writing"):
            builder.finalize()

    assert list(tmp_path.iterdir()) == []
    with pytest.raises(IndexedDatasetError, match="finished or was aborted"):
        builder.add_document([1])


def test_counts_that_do_not_add_up_are_an_error_and_nothing_appears(tmp_path):
    builder = IndexedDatasetBuilder(tmp_path / "data", vocab_size=10)
    builder.add_document([1, 2])
    row = {"documents": 1, "tokens": 3, "text_bytes": 5}
    with pytest.raises(ManifestError, match=r"tokens of all languages add up to 3, not 2"):
        builder.finalize(languages={"eng_Latn": row})

    assert list(tmp_path.iterdir()) == []


def test_an_end_of_document_id_outside_of_the_vocabulary_is_refused(tmp_path):
    builder = IndexedDatasetBuilder(tmp_path / "data", vocab_size=10)
    with pytest.raises(ManifestError, match="eod_id 10 is not below vocab_size 10"):
        builder.finalize(eod_id=10)


def test_counts_from_numpy_reach_the_manifest_as_plain_numbers(tmp_path):
    row = {key: np.int64(1) for key in ("documents", "tokens", "text_bytes")}
    with IndexedDatasetBuilder(tmp_path / "data", vocab_size=10) as builder:
        builder.add_document([1])
        builder.finalize(text_bytes=np.int64(1), languages={"eng_Latn": row})

    assert IndexedDataset(tmp_path / "data").manifest.languages["eng_Latn"]["tokens"] == 1


def test_a_file_system_without_locks_can_be_written_to(tmp_path, monkeypatch):
    """Lustre mounted without the option `flock` answers ENOSYS."""
    from gristmill.indexed_dataset import commit

    def no_locks(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(commit.fcntl, "flock", no_locks)
    write(tmp_path / "data", OLD)

    assert content(tmp_path / "data") == OLD
