"""Batches: the same global order for any layout, and data that does not fit refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gristmill.indexed_dataset import (
    DataChangedError,
    IndexedDatasetError,
    PhasedBlend,
    PrefixNotFoundError,
    TokenizerMismatchError,
    TokenRangeError,
)
from gristmill.trainer.config import DataConfig, EvaluateConfig, PretrainConfig
from gristmill.trainer.config_model import ModelConfig
from gristmill.trainer.data import (
    Batch,
    Batches,
    TrainingData,
    open_data,
)
from gristmill.trainer.evaluate import (
    Score,
    count_tokens,
    evaluate,
    load_token_bytes,
    unigram_nll,
)
from gristmill.trainer.grid import Grid, Ranks
from gristmill.trainer.model import Transformer, initialize, resolve
from gristmill.trainer.plan import plan_pretrain
from gristmill.trainer.recipe import resolve_config
from gristmill.trainer.speed import flops_per_token


def config(data: Path, **fields: Any) -> PretrainConfig:
    section = DataConfig(path=str(data), sequence_length=32, **fields)
    return dataclasses.replace(PretrainConfig(), data=section)


@pytest.fixture(scope="module")
def opened(data_folder: Path) -> TrainingData:
    return open_data(config(data_folder), Path("unused"))


def steps(data: TrainingData, copies: int, first: int = 0, last: int = 4) -> list[torch.Tensor]:
    """Return each step's samples over all copies, in order: int64[8, 32]."""
    streams = [Batches(data, 8, Ranks(rank, copies), first, last) for rank in range(copies)]
    joined = []
    for _ in range(first, last):
        joined.append(torch.cat([stream.next().tokens_BT for stream in streams]))
    for stream in streams:
        stream.close()
    return joined


def test_any_number_of_copies_sees_the_same_samples_in_the_same_steps(
    opened: TrainingData,
) -> None:
    alone = steps(opened, 1)

    for copies in (2, 4, 8):
        for one, other in zip(alone, steps(opened, copies), strict=True):
            assert torch.equal(one, other)
    assert len({tuple(row.tolist()) for step in alone for row in step}) > 24


def test_a_stream_that_begins_later_gives_the_rest_of_the_same_samples(
    opened: TrainingData,
) -> None:
    for one, other in zip(steps(opened, 1)[2:], steps(opened, 1, first=2), strict=True):
        assert torch.equal(one, other)


def test_micro_batches_are_the_batch(opened: TrainingData) -> None:
    stream = Batches(opened, 8, Ranks(), 0, 1)
    batch = stream.next()
    stream.close()

    parts = list(batch.micro_batches(3, torch.device("cpu")))

    assert [part.tokens_BT.shape[0] for part in parts] == [3, 3, 2]
    assert torch.equal(torch.cat([part.labels_BT for part in parts]), batch.labels_BT)
    assert sum(part.num_valid for part in parts) == batch.num_valid


def test_a_stream_can_be_closed_before_its_end(opened: TrainingData) -> None:
    stream = Batches(opened, 8, Ranks(), 0, 10**6)
    assert isinstance(stream.next(), Batch)

    stream.close()

    assert not stream._thread.is_alive()


def test_facts_come_from_the_manifests(opened: TrainingData, data_folder: Path) -> None:
    assert opened.vocab_size == 257
    assert opened.eod_id == 0
    assert opened.tokenizer_folder == data_folder / "tokenizer"
    assert set(opened.train) == set(opened.validation) == {"eng_Latn", "ell_Grek", "hin_Deva"}


def read(blend: PhasedBlend, num_samples: int) -> dict[str, int]:
    """Return how many samples each group gives among the first `num_samples`."""
    drawn = [blend.locate(position)[0] for position in range(num_samples)]
    return {name: drawn.count(number) for number, name in enumerate(blend.names)}


def test_explicit_weights_are_the_shares_of_samples(data_folder: Path) -> None:
    shares = {"eng_Latn": 2.0, "ell_Grek": 1.0, "hin_Deva": 1.0}

    data = open_data(config(data_folder, weights=shares), Path("unused"))

    assert read(data.blend, 400) == pytest.approx(
        {"eng_Latn": 200, "ell_Grek": 100, "hin_Deva": 100}, abs=2
    )


def test_weights_that_name_other_groups_are_refused(data_folder: Path) -> None:
    with pytest.raises(IndexedDatasetError, match="the train groups are ell_Grek"):
        open_data(config(data_folder, weights={"eng_Latn": 1.0}), Path("unused"))


def test_a_missing_folder_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(PrefixNotFoundError, match="gristmill preprocess"):
        open_data(PretrainConfig(), tmp_path)


def test_prefixes_of_two_tokenizers_are_refused(tmp_path: Path, write_data: Any) -> None:
    data = write_data(tmp_path / "data")
    write_data(tmp_path / "other", fingerprint="f" * 32, texts={"fra_Latn": "le moulin tourne "})
    for file in (tmp_path / "other" / "train").iterdir():
        file.rename(data / "train" / file.name)

    with pytest.raises(TokenizerMismatchError, match="fra_Latn with ffff"):
        open_data(config(data), tmp_path)


def test_foreign_datasets_need_the_size_of_their_vocabulary(
    tmp_path: Path, write_data: Any
) -> None:
    data = write_data(tmp_path / "data", manifest=False)

    with pytest.raises(IndexedDatasetError, match=r"Set data\.vocab_size"):
        open_data(config(data), tmp_path)
    opened = open_data(config(data, vocab_size=257, eod_id=0), tmp_path)

    assert (opened.vocab_size, opened.eod_id, opened.tokenizer_folder) == (257, 0, None)


def test_ids_beyond_the_vocabulary_of_a_foreign_dataset_are_refused(
    tmp_path: Path, write_data: Any
) -> None:
    data = write_data(tmp_path / "data", manifest=False)
    opened = open_data(config(data, vocab_size=100), tmp_path)
    stream = Batches(opened, 8, Ranks(), 0, 5)

    with pytest.raises(TokenRangeError, match="beyond the vocabulary of 100 ids"):
        stream.next()
    stream.close()


def test_counting_refuses_ids_beyond_the_vocabulary_with_their_place(
    tmp_path: Path, write_data: Any
) -> None:
    data = write_data(tmp_path / "data", manifest=False)
    opened = open_data(config(data, vocab_size=100), tmp_path)

    with pytest.raises(TokenRangeError, match=r"ell_Grek, tokens 0 to .* vocabulary of 100 ids"):
        count_tokens(opened.train, 100, Ranks(), torch.device("cpu"))


def test_another_vocabulary_size_is_other_data(tmp_path: Path, write_data: Any) -> None:
    data = write_data(tmp_path / "data", manifest=False)
    before = open_data(config(data, vocab_size=257), tmp_path)
    after = open_data(config(data, vocab_size=300), tmp_path)

    same = before.resumed(config(data), before.state(8), "the checkpoint")
    assert same.blend.fingerprint == before.blend.fingerprint
    with pytest.raises(DataChangedError, match="257 ids, the data now have 300"):
        after.resumed(config(data), before.state(8), "the checkpoint")


def test_a_config_that_contradicts_the_manifests_is_refused(data_folder: Path) -> None:
    with pytest.raises(IndexedDatasetError, match="disagree about vocab_size"):
        open_data(config(data_folder, vocab_size=300), Path("unused"))


class Uniform(torch.nn.Module):
    """Stands in for a model that gives every id the same probability."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.compute_dtype = torch.float32
        self.tensor = Ranks()
        self.device = torch.device("cpu")
        self.config = ModelConfig()

    def token_nll(
        self, tokens: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor, places: None
    ) -> torch.Tensor:
        return mask * float(np.log(self.vocab_size))


def test_bits_per_byte_of_a_uniform_guess_are_known_by_hand(opened: TrainingData) -> None:
    # 257 ids that are bytes, or the end of a document, which is one more token and no byte.
    found = evaluate(Uniform(257), opened.validation, Grid(), batch_size=4)  # type: ignore[arg-type]

    assert found.complete
    for name, score in found.groups.items():
        dataset = opened.validation[name]
        text_bytes = dataset.split.text_bytes
        assert text_bytes is not None
        assert (score.tokens, score.text_bytes) == (text_bytes + 3, text_bytes)
        assert score.loss == pytest.approx(np.log(257), rel=1e-6)
        expected = (text_bytes + 3) * np.log2(257) / text_bytes
        assert score.bits_per_byte == pytest.approx(expected, rel=1e-6)


def test_token_bytes_and_manifest_agree_and_serve_a_part_of_the_windows(
    opened: TrainingData,
) -> None:
    token_bytes = load_token_bytes(opened.tokenizer_folder, 257)
    assert token_bytes is not None
    model: Any = Uniform(257)

    part = evaluate(
        model, opened.validation, Grid(), batch_size=4, max_windows=1, token_bytes=token_bytes
    )

    assert not part.complete
    for name, score in part.groups.items():
        labels = opened.validation[name].sample(0)["labels"]
        assert score.tokens == 32
        assert score.text_bytes == 32 - int((labels == 0).sum())
    unknown = evaluate(model, opened.validation, Grid(), batch_size=4, max_windows=1)
    assert unknown.total.bits_per_byte is None


def test_a_long_evaluation_says_how_far_it_is(
    opened: TrainingData, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gristmill.trainer.evaluate.SECONDS_BETWEEN_LINES", 0.0)
    caplog.set_level("INFO")
    model: Any = Uniform(257)
    evaluate(model, opened.validation, Grid(), batch_size=4)

    total = sum(dataset.samples_per_epoch for dataset in opened.validation.values())
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith(f"scored 4 of {total} windows, about ")


def test_every_window_is_scored_once_however_they_are_shared_out(opened: TrainingData) -> None:
    model = Transformer(resolve_config(PretrainConfig()).model, 257)
    small = dataclasses.replace(model.config, num_layers=1, hidden_size=32, num_heads=2,
                                num_kv_heads=2, ffn_size=64)  # fmt: skip
    model = Transformer(resolve(small), 257, compute_dtype=torch.float64)
    initialize(model, 0)

    def score(batch_size: int) -> Score:
        return evaluate(model, opened.validation, Grid(), batch_size=batch_size).total

    assert (
        score(1).tokens
        == score(7).tokens
        == sum(dataset.num_tokens for dataset in opened.validation.values())
    )
    assert score(1).loss == pytest.approx(score(7).loss, rel=1e-12)


def test_the_unigram_model_counts_all_training_tokens_and_adds_one(opened: TrainingData) -> None:
    counts = count_tokens(opened.train, 257, Ranks(), torch.device("cpu"))
    nll = unigram_nll(counts)

    total = sum(shard.num_tokens for shards in opened.train.values() for shard in shards)
    assert counts.sum() == total
    assert counts[0] == sum(s.num_documents for shards in opened.train.values() for s in shards)
    assert np.exp(-nll).sum() == pytest.approx(1.0)
    never = int(np.flatnonzero(counts == 0)[0])
    assert nll[never] == pytest.approx(np.log(total + 257))
    assert unigram_nll(np.array([3, 0])) == pytest.approx(-np.log([4 / 5, 1 / 5]))


def test_token_bytes_of_another_tokenizer_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "token_bytes.npy", np.ones(5, dtype=np.int32))

    with pytest.raises(IndexedDatasetError, match="belongs to another tokenizer"):
        load_token_bytes(tmp_path, 257)


def test_a_plan_tells_size_memory_time_and_epochs_and_writes_nothing(
    data_folder: Path, tmp_path: Path
) -> None:
    text = plan_pretrain(config(data_folder), output=tmp_path / "run")

    for words in ("parameters", "memory", "tokens/s", "FLOP", "epochs", "hin_Deva"):
        assert words in text
    assert not (tmp_path / "run").exists()


def test_the_flop_formula_counts_what_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    settings = resolve_config(PretrainConfig(evaluate=EvaluateConfig(enabled=False)))
    model = Transformer(settings.model, 256)
    initialize(model, 0)
    length = settings.data.sequence_length
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, length, dtype=torch.int64)).sum().backward()

    # torch's counter knows matrix products; the CPU's fused attention is none to it.
    attention = 6 * settings.model.num_layers * settings.model.hidden_size * length
    assert counter.get_total_flops() / length == flops_per_token(settings, 256) - attention
