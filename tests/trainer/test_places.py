"""Documents of a packed sample are separate texts: the same loss and gradients as one by one."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gristmill.trainer import PretrainConfig, pretrain
from gristmill.trainer.config import (
    CheckpointConfig,
    DataConfig,
    GenerateConfig,
    LogConfig,
    OptimizerConfig,
    ParallelConfig,
    TrainingConfig,
)
from gristmill.trainer.config_model import ModelConfig, RopeScalingConfig
from gristmill.trainer.data import Batch, Batches, open_data
from gristmill.trainer.grid import Grid, Ranks
from gristmill.trainer.guard import Guard
from gristmill.trainer.metrics import read_metrics
from gristmill.trainer.model import Transformer, initialize, resolve
from gristmill.trainer.optimizer import make_optimizer
from gristmill.trainer.places import (
    Places,
    attend,
    document_places,
    flat_bounds,
    padding_places,
)
from gristmill.trainer.step import accumulate, start_step

VOCAB_SIZE = 50
SMALL = ModelConfig(num_layers=2, hidden_size=32, num_heads=4, num_kv_heads=2, init_std=0.2)
MODELS = {
    "llama": SMALL,
    "yarn": dataclasses.replace(
        SMALL, rope_scaling=RopeScalingConfig(kind="yarn", factor=4.0, original_positions=8)
    ),
    "gpt2": dataclasses.replace(
        SMALL,
        num_kv_heads=0,
        norm="layer",
        positions="learned",
        activation="gelu",
        biases=True,
        max_positions=24,
    ),
}
LENGTHS = ((5, 12, 7), (1, 23), (24,), (3, 3, 3, 8, 7))


def make(config: ModelConfig) -> Transformer:
    model = Transformer(resolve(config), VOCAB_SIZE, compute_dtype=torch.float64)
    initialize(model, seed=1)
    return model


def rows() -> Batch:
    """Return four samples of 24 tokens with documents of the LENGTHS; boundary labels masked."""
    chance = torch.Generator().manual_seed(3)
    tokens = torch.randint(0, VOCAB_SIZE, (4, 25), generator=chance)
    mask = torch.ones(4, 24, dtype=torch.bool)
    bounds = torch.full((4, 25), 24, dtype=torch.int32)
    for row, lengths in enumerate(LENGTHS):
        edges = np.cumsum([0, *lengths])
        bounds[row, : len(edges)] = torch.from_numpy(edges)
        mask[row, edges[1:] - 1] = False
    return Batch(tokens[:, :-1], tokens[:, 1:], mask, int(mask.sum()), bounds)


def gradients(model: Transformer) -> dict[str, torch.Tensor]:
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("name", MODELS)
def test_packed_documents_have_the_loss_and_gradients_of_separate_sequences(name: str) -> None:
    model, batch = make(MODELS[name]), rows()

    packed = accumulate(model, batch, 2, torch.device("cpu"))
    found = gradients(model)
    alone = torch.zeros((), dtype=torch.float64)
    for row, lengths in enumerate(LENGTHS):
        start = 0
        for length in lengths:
            cut = (slice(row, row + 1), slice(start, start + length))
            part = Batch(batch.tokens_BT[cut], batch.labels_BT[cut], batch.mask_BT[cut], 0)
            alone += accumulate(model, part, 1, torch.device("cpu"))
            start += length

    torch.testing.assert_close(packed, alone, rtol=1e-12, atol=1e-12)
    expected = gradients(model)
    assert found.keys() == expected.keys()
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-10, atol=1e-10, msg=key)


def test_joined_documents_are_another_computation() -> None:
    model, batch = make(SMALL), rows()
    separate = accumulate(model, batch, 4, torch.device("cpu"))

    joined = accumulate(model, dataclasses.replace(batch, bounds_BN=None), 4, torch.device("cpu"))

    assert abs(separate - joined) > 1


def test_flash_attention_is_told_the_same_bounds_as_the_mask() -> None:
    bounds_BN = rows().bounds_BN
    assert bounds_BN is not None

    bounds_N, longest = flat_bounds(bounds_BN)

    places = document_places(bounds_BN, torch.device("cpu"), torch.float64)
    assert places is not None
    assert places.mask_B1TC is not None
    whole = torch.block_diag(*places.mask_B1TC[:, 0])
    expected = torch.zeros(96, 96)
    for start, stop in pairwise(bounds_N.tolist()):
        expected[start:stop, start:stop] = torch.ones(stop - start, stop - start).tril()
        assert stop - start <= longest
    assert torch.equal(whole, expected.bool())
    assert bounds_N.dtype == torch.int32
    assert len(bounds_N) == 17  # eleven documents, filled up to sixteen
    assert torch.equal(places.positions_BT[0], torch.tensor([*range(5), *range(12), *range(7)]))


def test_padding_is_seen_by_nobody_but_itself() -> None:
    places = padding_places(torch.tensor([0, 2]), start=1, length=2)

    assert places.positions_BT.tolist() == [[1, 2], [0, 0]]
    assert places.mask_B1TC is not None
    assert places.mask_B1TC[1, 0].tolist() == [[False, True, False], [False, False, True]]


def config(data: Path, **fields: Any) -> PretrainConfig:
    return PretrainConfig(
        model=SMALL,
        data=DataConfig(path=str(data), sequence_length=96, **fields),
        optimizer=OptimizerConfig(learning_rate=1e-2),
        training=TrainingConfig(num_steps=4, global_batch_size=4, micro_batch_size=2, device="cpu"),
        parallel=ParallelConfig(threads_per_rank=1),
        checkpoint=CheckpointConfig(every_steps=2, keep_last=0),
        log=LogConfig(tensorboard=False),
        generate=GenerateConfig(max_tokens=0),
    )


def test_best_fit_trains_on_whole_documents_and_never_across_them(data_folder: Path) -> None:
    data = open_data(config(data_folder, order="best_fit"), Path("unused"))
    stream = Batches(data, 4, Ranks(), 0, 3)
    batches = [stream.next() for _ in range(3)]
    stream.close()

    for batch in batches:
        assert batch.bounds_BN is not None
        for bounds, tokens, mask in zip(
            batch.bounds_BN, batch.tokens_BT, batch.mask_BT, strict=True
        ):
            edges = torch.unique(bounds).tolist()
            # A piece of a document longer than a sample is followed by a label of its own.
            assert not mask[[edge - 1 for edge in edges[1:-1]]].any()
            # id 0 ends a document: inside of one it is seen at its last place only.
            for start, stop in pairwise(edges):
                document = tokens[start:stop]
                assert (document[:-1] != 0).all() or (document == 0).all()


@pytest.mark.parametrize("fields", [{"order": "best_fit"}, {"documents": "separate"}])
def test_a_training_on_separate_documents_is_scored_inside_of_them(
    fields: dict[str, Any], data_folder: Path, tmp_path: Path
) -> None:
    settings = config(data_folder, **fields)
    result = pretrain(settings, output=tmp_path / "run")

    losses = [record["loss"] for record in read_metrics(tmp_path / "run")]
    assert losses[-1] < losses[0]
    report = json.loads((tmp_path / "run" / "pretrain_report.json").read_text())
    joined = pretrain(config(data_folder), output=tmp_path / "joined").report
    for group, score in report["languages"].items():
        # three validation documents: their first tokens have nothing that they follow from
        assert score["tokens"] == joined["languages"][group]["tokens"] - 3
        assert score["text_bytes"] == joined["languages"][group]["text_bytes"] - 3
    with pytest.raises(ValueError, match=r"data\.(order|documents) was"):
        pretrain(config(data_folder), output=tmp_path / "run")
    assert result.finished


def test_a_step_on_separate_documents_changes_with_no_micro_batch() -> None:
    results = []
    for micro in (1, 4):
        model = make(SMALL)
        optimizer = make_optimizer(model, OptimizerConfig(), Grid())
        results.append(
            start_step(
                model,
                optimizer,
                rows(),
                Grid(),
                Guard(OptimizerConfig(), torch.device("cpu")),
                micro_batch_size=micro,
                learning_rate=1e-3,
                clip_norm=1.0,
            ).read()
        )
    assert results[0].loss == pytest.approx(results[1].loss, rel=1e-12)
    assert results[0].gradient_norm == pytest.approx(results[1].gradient_norm, rel=1e-12)


@pytest.mark.parametrize("has_groups", [True, False])
def test_documents_for_flash_attention_see_what_the_mask_lets_them(
    has_groups: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is none on a CPU: a stand-in takes its arguments, those of torch 2.11 and of later."""

    def attention(*arguments: Any, window_size: tuple[int, int], repeats: bool) -> torch.Tensor:
        q, k, v, bounds, _, longest, _ = arguments
        assert window_size == (-1, 0)
        assert repeats or q.shape[1] == k.shape[1]
        assert longest >= int(bounds.diff().max())
        found = torch.empty_like(q)
        for first, last in pairwise(bounds.tolist()):
            part = (x[first:last].transpose(0, 1) for x in (q, k, v))
            y = F.scaled_dot_product_attention(*part, is_causal=True, enable_gqa=repeats)
            found[first:last] = y.transpose(0, 1)
        return found

    def new(*arguments: Any, window_size: tuple[int, int], enable_gqa: bool) -> torch.Tensor:
        return attention(*arguments, window_size=window_size, repeats=enable_gqa)

    def old(*arguments: Any, window_size: tuple[int, int]) -> torch.Tensor:
        return attention(*arguments, window_size=window_size, repeats=False)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", new if has_groups else old)
    bounds_BN = rows().bounds_BN
    assert bounds_BN is not None
    masked = document_places(bounds_BN, torch.device("cpu"), torch.float64)
    assert masked is not None
    flat = Places(masked.positions_BT, None, *flat_bounds(bounds_BN))
    q, k, v = (torch.randn(4, heads, 24, 8, dtype=torch.float64) for heads in (4, 2, 2))

    found = attend(q, k, v, flat, 0)

    torch.testing.assert_close(found, attend(q, k, v, masked, 0))
