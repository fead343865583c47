"""Five thousand damaged prefixes: the right tokens or a clear error, within bounds, every time.

Each kind of damage is done many times to several healthy prefixes, in a child process whose memory
is limited and whose time is: a crash, a hang or a huge allocation ends the child and not the tests.
"""

import importlib.util
import os
import pickle
import resource
import shutil
import signal
from itertools import chain, permutations
from pathlib import Path

import numpy as np
import pytest

from gristmill.indexed_dataset import (
    IndexedDataset,
    IndexedDatasetBuilder,
    IndexedDatasetError,
    SampleDataset,
    SideStream,
    merge,
    passages,
    repair,
    verify,
)
from gristmill.indexed_dataset import index as index_module
from gristmill.indexed_dataset.describe import describe_prefix

_spec = importlib.util.spec_from_file_location(
    "hostile_files", Path(__file__).with_name("hostile_files.py")
)
hostile = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hostile)

TIMES = 5 if os.environ.get("GRISTMILL_TEST_DEEP") else 1
SUFFIXES = (".bin", ".idx", ".json", ".origin", ".mask.side")
MEMORY = 512 << 20  # bytes that a child may allocate beyond what it has; threads' stacks count
SECONDS = 300  # for a child's some hundred cases, on a busy machine


def write(folder, seed, *, sequences=1, documents=18, empty=False, **options):
    """Write a prefix with everything a prefix can have beside it."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    prefix = folder / "data"
    total = 0
    streams = {"mask": "uint8"}
    with IndexedDatasetBuilder(prefix, vocab_size=60_000, streams=streams, **options) as builder:
        for number in range(documents):
            size = int(random.integers(0 if empty else 1, 9))
            tokens = np.append(random.integers(1, 60_000, size), 0) if size else np.zeros(0, int)
            cut = [tokens.size] if tokens.size else []
            if sequences > 1 and tokens.size > 1:
                cut = [1, tokens.size - 1]
            mask = {"mask": tokens % 2}
            builder.add_document(tokens, cut, origin=(number % 2, number), streams=mask)
            total += tokens.size
        row = {"documents": documents, "tokens": total, "text_bytes": 3 * total}
        builder.finalize(
            eod_id=0,
            text_bytes=3 * total,
            document_order="shuffled",
            group="eng_Latn",
            tokenizer={"path": "../tokenizer", "fingerprint": "ab" * 16},
            languages={"eng_Latn": row},
            sources={"wiki": row},
            origin_files=["a.jsonl", "b.jsonl"],
            config={"pack": {"seed": 1, "names": ["a", "b"]}, "blend": {"weight": 1.5}},
            stages={"pack": 1},
        )
    return prefix


def healthy(folder):
    """Write the prefixes that are damaged: plain, several sequences and modes, and without .json.

    Two plain ones have equal counts of documents and tokens, as a swap needs to be believed.
    """
    plain = write(folder / "plain", 1)
    twin = folder / "twin"
    twin.mkdir()
    lengths = np.diff(IndexedDataset(plain).document_indices)  # one sequence each
    assert (lengths == 1).all()
    sizes = IndexedDataset(plain).sequence_lengths[::-1]
    with IndexedDatasetBuilder(twin / "data", vocab_size=60_000, streams={"mask": "uint8"}) as b:
        for number, size in enumerate(sizes):
            tokens = np.append(np.arange(1, size), 0)
            origin = (0, number)
            b.add_document(tokens, origin=origin, streams={"mask": np.zeros(size, int)})
        b.finalize(eod_id=0, document_order="shuffled", origin_files=["c.jsonl"], group="eng_Latn")
    parts = write(folder / "parts", 2, sequences=2, empty=True, dtype="int32", multimodal=True)
    foreign = write(folder / "foreign", 3, sequences=2)
    Path(f"{foreign}.json").unlink()
    return {"plain": plain, "twin": twin / "data", "parts": parts, "foreign": foreign}


def flat(lists):
    return list(chain.from_iterable(lists))


def read_everything(prefix):
    """Return documents, sequences and what stands beside them; tokens are always compared."""
    dataset = IndexedDataset(prefix)
    if dataset.num_documents > 1 << 20:
        return None  # only a hostile one has so many, all of them empty
    documents = [dataset.get_document(number).tolist() for number in range(dataset.num_documents)]
    tokens = flat(documents)
    assert flat(sequence.tolist() for sequence in dataset[:]) == tokens
    assert dataset.document_lengths.tolist() == [len(document) for document in documents]
    assert dataset.read_tokens(0, dataset.num_tokens).tolist() == tokens
    last = SampleDataset(dataset, 8, order="sequential", documents="separate")
    labels = flat(last[i]["labels"][last[i]["loss_mask"] > 0].tolist() for i in range(2))
    assert set(labels) <= set(tokens)
    stable = SampleDataset(dataset, 8, seed=3, documents="separate")
    for number in range(4):
        sample = stable.sample(number)
        place = flat(range(*span) for span in stable.spans(number))
        assert sample["tokens"].tolist() == [tokens[p] for p in place[:-1]]
        assert sample["labels"].tolist() == [tokens[p] for p in place[1:]]
        assert sum(passage.num_tokens for passage in passages(stable, number)) == 8
    describe_prefix(prefix).encode()
    return documents


def read_beside(prefix):
    dataset = IndexedDataset(prefix)
    origins = [dataset.origin(number) for number in range(dataset.num_documents)]
    if dataset.manifest is None:
        return origins, None
    return origins, SideStream(dataset, "mask").read(0, dataset.num_tokens).tolist()


def read(function, prefix):
    """Return what a function gives, or the text of its error."""
    try:
        return function(prefix)
    except IndexedDatasetError as error:
        return str(error)


class Examiner:
    """Looks at one damaged prefix after the other; knows what the healthy ones hold."""

    def __init__(self, folder, large):
        self.prefixes = healthy(folder / "healthy")
        self.documents = {name: read_everything(p) for name, p in self.prefixes.items()}
        self.beside = {name: read_beside(p) for name, p in self.prefixes.items()}
        self.copies = folder / "damaged"
        self.folder = folder
        self.large = large  # as indexes above a size are: not checked when they are opened
        self.refused = self.right = self.cases = 0
        if large:
            index_module._CHECKED_AT_OPEN_BYTES = -1

    def fresh(self, name):
        """Return a copy of a prefix; a copy that was used before is made good again."""
        self.folder = self.copies / name
        if not self.folder.exists():
            shutil.copytree(self.prefixes[name].parent, self.folder)
        return self.folder / "data"

    def restore(self, name, path):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        path.unlink(missing_ok=True)
        healthy = self.prefixes[name].parent / path.name
        if healthy.exists():
            shutil.copy(healthy, path)

    def damage(self, kind, seed):
        random = np.random.default_rng(seed)
        names = ["plain", "parts", "foreign"]
        if kind.__name__.startswith("manifest") or kind is hostile.no_file:
            names.remove("foreign")
        name = names[seed % len(names)]
        prefix = self.fresh(name)
        path = kind(random, prefix)
        if kind is hostile.no_file:
            self.require_named(prefix, path)
        elif not self.is_unchanged(name, path):
            self.examine(name, prefix, path, kind)
        self.restore(name, path)
        self.cases += 1

    def is_unchanged(self, name, path):
        original = (self.prefixes[name].parent / path.name).read_bytes()
        if not path.exists() or path.stat().st_size != len(original):
            return False
        return path.read_bytes() == original

    def examine(self, name, prefix, path, kind):
        found = read(read_everything, prefix)
        if path.suffix == ".idx" and path.stat().st_size > 1 << 30:
            # Zeros as far as one can see: no entry is wrong, and looking at all takes minutes.
            assert isinstance(found, str) or (name, found) == ("foreign", None)
            self.refused += 1
            return
        report = verify(prefix)
        full = report
        if kind in (hostile.bin_content, hostile.side_file) or self.cases % 16 == 1:
            full = verify(prefix, full=True)
            assert set(report.problems) <= set(full.problems)
        foreign = name == "foreign"
        if isinstance(found, str):
            self.refused += 1
            assert str(self.folder) in found
            assert len(found) < 1000, found[:2000]
            assert report.problems, found
        else:
            self.right += 1
        if kind is hostile.bin_content:
            assert not isinstance(found, str)
            assert foreign or any("its bytes were altered" in p for p in full.problems), full
        elif kind is hostile.bin_length:
            assert isinstance(found, str)
            assert path.name in found
        elif path.suffix == ".idx":
            if not isinstance(found, str) and found != self.documents[name]:
                # Of bounds that are in order nothing but the checksum tells that they are wrong.
                same = flat(found) == flat(self.documents[name])
                assert same or (foreign and self.other_dtype(prefix))
                assert (self.large and report.problems) or foreign
            assert foreign or report.problems
        elif not isinstance(found, str):
            assert found == self.documents[name]
        beside = read(read_beside, prefix)
        if kind is hostile.side_file and not foreign:
            assert isinstance(beside, str) or beside == self.beside[name] or full.problems
            assert full.problems
            wrong_length = not path.exists() or path.stat().st_size != len(
                (self.prefixes[name].parent / path.name).read_bytes()
            )
            assert not wrong_length or (report.problems and path.name in str(report.problems))
        if self.cases % 8 == 0:
            self.use(name, prefix, path)

    def other_dtype(self, prefix):
        """Nothing in a dataset without manifest contradicts another dtype of the same width."""
        return IndexedDataset(prefix).dtype != IndexedDataset(self.prefixes["foreign"]).dtype

    def use(self, name, prefix, path):
        """Merge with a healthy prefix and repair: right, or an error and nothing written."""
        out = self.folder / "out"
        partner = self.prefixes[name]
        try:
            merge([prefix, partner], out)
        except IndexedDatasetError:
            assert not list(self.folder.glob("out*"))
        else:
            merged = read_everything(out)
            if path.suffix not in (".bin", ".idx"):
                assert merged == self.documents[name] * 2
            for written in self.folder.glob("out*"):
                written.unlink()
        if path.suffix == ".idx":
            try:
                repair(prefix)
            except IndexedDatasetError:
                pass
            else:
                assert path.read_bytes() == Path(f"{partner}.idx").read_bytes()

    def require_named(self, prefix, path):
        """What is no file is refused by its name, and verification says so."""
        found = []
        for function in (read_everything, read_beside):
            try:
                found.append(function(prefix))
            except (IndexedDatasetError, OSError) as error:
                found.append(None)
                named = path.name in str(error)
            else:
                named = True
            assert named
        problems = verify(prefix, full=True).problems
        if path.suffix in (".idx", ".bin"):
            assert found == [None, None]
        if path.suffix != ".json" or found[0] is None:
            assert path.name in str(problems)
        self.refused += found[0] is None or found[1] is None

    def swap(self, one, other, suffix):
        """Put a file of another prefix in the place of its own."""
        source = Path(f"{self.prefixes[other]}{suffix}")
        prefix = self.fresh(one)
        target = Path(f"{prefix}{suffix}")
        if not source.exists():
            return
        if target.exists() and source.read_bytes() == target.read_bytes():
            return
        target.unlink(missing_ok=True)
        shutil.copy(source, target)
        found, report = read(read_everything, prefix), verify(prefix, full=True)
        self.cases += 1
        if isinstance(found, str):
            assert str(prefix) in found
            self.refused += 1
        elif suffix == ".bin":
            assert {one, other} == {"plain", "twin"}  # of one length: only its checksum tells
        else:
            assert found == self.documents[one]
        if one != "foreign":
            assert report.problems
        self.restore(one, target)


def in_child(folder, cases, *, large=False):
    """Run `cases` (function of an Examiner) in a limited child; return (cases, refused, right)."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiving)
        answer = "nothing"
        try:
            signal.alarm(SECONDS)
            used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_DATA, (used + MEMORY, used + MEMORY))
            examiner = Examiner(folder, large)
            answer = examiner.cases, examiner.refused, examiner.right
            cases(examiner)
            answer = examiner.cases, examiner.refused, examiner.right
        except BaseException:
            import traceback

            answer = traceback.format_exc()
        finally:
            with os.fdopen(sending, "wb") as stream:
                stream.write(pickle.dumps(answer))
            os._exit(0)
    os.close(sending)
    with os.fdopen(receiving, "rb") as stream:
        data = stream.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, f"the child died with {status} (14: it hung, 9 or 11: it crashed)"
    answer = pickle.loads(data)
    assert isinstance(answer, tuple), answer
    return answer


def test_there_are_five_thousand_cases():
    assert sum(hostile.DAMAGES.values()) >= 5000


@pytest.mark.parametrize(
    ("kind", "large"),
    [(kind, False) for kind in hostile.DAMAGES]
    + [(kind, True) for kind in hostile.DAMAGES if kind.__name__.startswith("index")],
)
def test_a_damaged_prefix_gives_the_right_tokens_or_a_clear_error(tmp_path, kind, large):
    """Large indexes are only checked where they are read; a small one, whole."""
    of_index = kind.__name__.startswith("index")
    number = hostile.DAMAGES[kind] * TIMES // (1 + of_index)
    first = 10_000_000 * list(hostile.DAMAGES).index(kind) + 5_000_000 * large

    def cases(examiner):
        for seed in range(first, first + number):
            try:
                examiner.damage(kind, seed)
            except BaseException as error:
                error.add_note(f"the case is {kind.__name__} of seed {seed}")
                raise

    done, refused, right = in_child(tmp_path, cases, large=large)
    assert done == number
    if kind in (hostile.bin_content, hostile.side_file):
        assert right > 0.9 * number
    else:
        assert refused > number // 3


def test_files_swapped_between_prefixes_are_noticed(tmp_path):
    def cases(examiner):
        for one, other in permutations(examiner.prefixes, 2):
            for suffix in SUFFIXES:
                examiner.swap(one, other, suffix)

    done, refused, _ = in_child(tmp_path, cases)
    assert done > 40
    assert refused > 20


def test_the_limit_of_memory_is_real(tmp_path):
    """A reader that believed a hostile count would not get away with it here."""

    def cases(examiner):
        np.ones(MEMORY // 4, np.int64)

    with pytest.raises(AssertionError, match="MemoryError"):
        in_child(tmp_path, cases)
