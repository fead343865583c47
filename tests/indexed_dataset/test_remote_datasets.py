"""Datasets in an object store: the samples of local files, whatever the network does."""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import fsspec
import numpy as np
import pytest

from gristmill.indexed_dataset import (
    BlendedDataset,
    CorruptIndexError,
    IndexedDataset,
    IndexedDatasetBuilder,
    ObjectStoreError,
    Phase,
    PhasedBlend,
    PrefixNotFoundError,
    SampleDataset,
    TruncatedDataError,
    build_megatron_blend,
    find_prefixes,
    object_store,
    open_groups,
    read_in_order,
    remote_bin,
    store_cache,
)

S = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three groups, one of two shards and one with loss masks."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for name in ("deu_Latn", "eng_Latn-00000-of-00002", "eng_Latn-00001-of-00002"):
        with IndexedDatasetBuilder(folder / name, vocab_size=60_000) as builder:
            for _ in range(200):
                ids = random.integers(1, 60_000, size=random.integers(0, 60))
                builder.add_document(np.append(ids, 0))
            builder.finalize(eod_id=0, document_order="shuffled")
    with IndexedDatasetBuilder(
        folder / "tune", vocab_size=60_000, streams={"loss_mask": "uint8"}
    ) as builder:
        for _ in range(50):
            ids = random.integers(1, 60_000, size=random.integers(2, 60))
            builder.add_document(ids, streams={"loss_mask": (ids % 3 == 0).astype(np.uint8)})
        builder.finalize(eod_id=0, document_order="shuffled")
    return folder


@pytest.fixture
def url(folder: Path, s3: Any) -> str:
    return str(s3.put(folder, "data/train"))


@pytest.fixture
def memory(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same files in fsspec's memory, which answers at once."""
    monkeypatch.setattr(store_cache, "cache_folder", lambda: tmp_path / "object-cache")
    system = fsspec.filesystem("memory")
    for path in folder.iterdir():
        system.pipe_file(f"/data/train/{path.name}", path.read_bytes())
    return "memory://data/train"


@pytest.fixture
def proxy(s3: Any, s3_address: str, object_servers: ModuleType) -> Iterator[Any]:
    proxy = object_servers.CuttingProxy(s3_address, object_servers.Breaks())
    yield proxy
    proxy.close()


def equal(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(value, other[key]) for key, value in one.items()
    )


def blend_of(folder: Path | str, **options: Any) -> BlendedDataset:
    return BlendedDataset([SampleDataset(s, S, **options) for s in open_groups(folder).values()])


def test_a_blend_over_a_network_that_resets_connections_gives_the_samples_of_local_files(
    folder: Path, url: str, s3: Any, proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_bin, "REQUEST_BYTES", 2_000)
    proxy.breaks.after_bytes = (1, 12_000)
    s3.use(proxy.address)
    local, remote = (blend_of(f, block_length=8 * S, seed=3) for f in (folder, url))
    assert remote.fingerprint == local.fingerprint

    coming = read_in_order(remote, range(700), ahead_bytes=20_000)
    for position, sample in enumerate(coming):
        assert equal(sample, local.sample(position))

    assert position == 699
    assert proxy.breaks.broken > 5, "the network was quiet: nothing was tested"


@pytest.mark.parametrize("order", ["stable", "best_fit", "sequential", "megatron"])
@pytest.mark.parametrize("documents", ["joined", "separate"])
def test_every_order_gives_the_samples_of_local_files(
    folder: Path, memory: str, order: Any, documents: Any
) -> None:
    if (order, documents) == ("best_fit", "joined"):
        pytest.skip("best_fit is always separate")
    prefixes = [sorted(str(p)[:-4] for p in folder.glob("eng*.bin"))]
    prefixes.append([f"{memory}/{Path(p).name}" for p in prefixes[0]])
    for index, num_samples in enumerate((400, None)):
        count = num_samples if order == "megatron" else None
        local, remote = (
            SampleDataset(p, S, order=order, documents=documents, num_samples=count, seed=index)
            for p in prefixes
        )
        numbers = [*range(min(len(local), 150)), 0, 7]
        for number, sample in zip(numbers, read_in_order(remote, numbers), strict=True):
            assert equal(sample, local[number])


def test_phases_items_and_loss_masks_are_those_of_local_files(folder: Path, memory: str) -> None:
    def phased(place: Path | str) -> PhasedBlend:
        groups = open_groups(place)
        phases = [
            Phase(sequence_length=S, until_tokens=100 * S),
            Phase(sequence_length=2 * S, weights=[1, 0, 0]),
        ]
        sources = [groups[name] for name in ("deu_Latn", "eng_Latn", "eng_Latn")]
        return PhasedBlend(sources, phases, names=["a", "b", "c"])

    local, remote = phased(folder), phased(memory)
    for number, sample in enumerate(read_in_order(remote, range(200))):
        assert equal(sample, local.sample(number))
    chosen = [5, 150, 7, 2]
    for one, other in zip(remote.__getitems__(chosen), local.__getitems__(chosen), strict=True):
        assert equal(one, other)
    tuned = [SampleDataset(f"{place}/tune", S) for place in (folder, memory)]
    assert all(equal(tuned[1][n], tuned[0][n]) for n in range(20))
    assert any(tuned[0][n]["loss_mask"].min() == 0 for n in range(20))


def test_megatron_blends_are_built_from_an_object_store(folder: Path, memory: str) -> None:
    local, remote = (
        build_megatron_blend([f"{p}/deu_Latn", f"{p}/tune"], S, num_samples=100)
        for p in (folder, memory)
    )
    for number, sample in enumerate(read_in_order(remote, range(100))):
        assert equal(sample, local.sample(number))


def test_a_prefix_is_opened_read_pickled_and_described_as_a_local_one(
    folder: Path, url: str
) -> None:
    local, remote = IndexedDataset(folder / "deu_Latn"), IndexedDataset(f"{url}/deu_Latn.idx")

    assert find_prefixes(url).keys() == find_prefixes(folder).keys()
    assert remote.fingerprint == local.fingerprint
    assert remote.manifest == local.manifest
    for number in (0, 17, -1):
        assert np.array_equal(remote[number], local[number])
        assert np.array_equal(remote.get_document(number), local.get_document(number))
    assert np.array_equal(remote.read_tokens(5, 900), local.read_tokens(5, 900))
    assert np.array_equal(pickle.loads(pickle.dumps(remote))[3], local[3])
    remote[3][:] = 0  # tokens are the caller's own, as those of a file
    assert np.array_equal(remote[3], local[3])


def test_a_foreign_prefix_without_manifest_has_the_same_fingerprint(
    folder: Path, url: str, s3: Any, tmp_path: Path
) -> None:
    for suffix in (".bin", ".idx"):
        (tmp_path / f"x{suffix}").write_bytes((folder / f"deu_Latn{suffix}").read_bytes())
    remote = IndexedDataset(s3.put(tmp_path, "foreign") + "/x")

    assert remote.manifest is None
    assert remote.fingerprint == IndexedDataset(tmp_path / "x").fingerprint


def test_index_and_manifest_are_copied_once_and_again_when_they_change(
    url: str, s3: Any, tmp_path: Path
) -> None:
    IndexedDataset(f"{url}/deu_Latn")
    cache = tmp_path / "object-cache"
    times = {path: path.stat().st_mtime_ns for path in cache.rglob("*.*")}
    IndexedDataset(f"{url}/deu_Latn")
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.*")} == times
    assert {path.suffix for path in times} == {".idx", ".json"}

    for suffix in (".idx", ".bin", ".json"):
        name = f"{url}/tune{suffix}" if suffix != ".json" else f"{url}/tune.json"
        s3.direct.pipe_file(f"{url}/deu_Latn{suffix}", s3.direct.cat_file(name))
    assert IndexedDataset(f"{url}/deu_Latn").num_documents == 50


def test_memory_is_bounded_by_what_is_asked_for_ahead(
    memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = most = 0
    lock = threading.Lock()
    announce, forget = remote_bin.RemoteBin.announce, remote_bin.RemoteBin.forget
    monkeypatch.setattr(remote_bin, "REQUEST_BYTES", 1_000)

    def count(change: int) -> None:
        nonlocal held, most
        with lock:
            held += change
            most = max(most, held)

    def announced(self: Any, one: Any) -> None:
        count(1)
        announce(self, one)

    def forgot(self: Any, one: Any) -> None:
        count(-1 if one in self._ranges else 0)
        forget(self, one)

    monkeypatch.setattr(remote_bin.RemoteBin, "announce", announced)
    monkeypatch.setattr(remote_bin.RemoteBin, "forget", forgot)
    blend = blend_of(memory, block_length=4 * S)

    assert sum(1 for _ in read_in_order(blend, range(1_000), ahead_bytes=4_000)) == 1_000
    assert held == 0
    assert most <= 80, "more windows were held than 4,000 bytes and one sample are"


def test_a_jumping_order_says_that_it_is_slow_and_blocks_do_not(
    memory: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        list(read_in_order(SampleDataset(f"{memory}/deu_Latn", S), range(200)))
    assert "each is a request to the object store: that is slow" in caplog.text
    assert "data.block_length" in caplog.text


@pytest.mark.parametrize("how", ["refuse", "silent"])
def test_a_server_that_goes_away_is_a_named_error_at_the_sample_and_no_hang(
    url: str, s3: Any, proxy: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(object_store, "READ_SECONDS", 3.0)  # of what is under way below
    s3.use(proxy.address)
    coming = read_in_order(blend_of(url, block_length=4 * S), range(10_000), ahead_bytes=4_000)
    for _ in range(20):
        next(coming)
    monkeypatch.setattr(object_store, "READ_SECONDS", 0.1)
    setattr(proxy.breaks, how, True)
    s3.use(proxy.address)

    with pytest.raises(ObjectStoreError, match=r"s3://.*\.bin: reading bytes .* failed 7 times"):
        for _ in coming:
            pass


def test_a_bin_that_is_replaced_while_it_is_read_is_an_error_and_no_wrong_token(
    url: str, s3: Any
) -> None:
    dataset = IndexedDataset(f"{url}/deu_Latn")
    dataset.read_tokens(0, 10)
    content = s3.direct.cat_file(f"{url}/deu_Latn.bin")
    s3.direct.pipe_file(f"{url}/deu_Latn.bin", content[::-1])

    with pytest.raises(ObjectStoreError, match="was replaced while it was being read"):
        dataset.read_tokens(0, 10)


Damage = Callable[[Any, str], None]


def remove(s3: Any, url: str) -> None:
    s3.direct.rm_file(f"{url}/deu_Latn.bin")


def shorten(s3: Any, url: str) -> None:
    s3.direct.pipe_file(f"{url}/deu_Latn.bin", s3.direct.cat_file(f"{url}/deu_Latn.bin")[:-2])


def alter(s3: Any, url: str) -> None:
    content = bytearray(s3.direct.cat_file(f"{url}/deu_Latn.idx"))
    content[-1] ^= 1
    s3.direct.pipe_file(f"{url}/deu_Latn.idx", bytes(content))


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (remove, PrefixNotFoundError, "the copy is incomplete"),
        (shorten, TruncatedDataError, "cut off"),
        (alter, CorruptIndexError, "has the checksum"),
    ],
)
def test_what_is_damaged_in_the_store_is_refused(
    url: str, s3: Any, damage: Damage, error: type[Exception], message: str
) -> None:
    damage(s3, url)

    with pytest.raises(error, match=message) as caught:
        IndexedDataset(f"{url}/deu_Latn")
    assert "s3://" in str(caught.value)


def test_a_folder_that_is_not_there_is_refused(s3: Any) -> None:
    with pytest.raises(PrefixNotFoundError, match="there is no folder s3://"):
        open_groups(f"{s3.url}/nothing")
