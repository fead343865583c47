"""Encoders: both sides are seen, documents and windows kept; masks do not depend on the ranks."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gristmill.indexed_dataset import Masking, TokenRangeError
from gristmill.trainer import PretrainConfig, pretrain
from gristmill.trainer.config import DataConfig, TrainingConfig
from gristmill.trainer.config_check import check
from gristmill.trainer.config_masking import MaskingConfig
from gristmill.trainer.config_model import ModelConfig, check_model
from gristmill.trainer.data import Batches, open_data
from gristmill.trainer.grid import Ranks
from gristmill.trainer.metrics import read_metrics
from gristmill.trainer.model import Transformer, initialize, resolve
from gristmill.trainer.places import document_places
from gristmill.trainer.report import read_report
from gristmill.trainer.resolved import resolve_config
from gristmill.trainer.sampling import generate, load_model
from gristmill.trainer.speed import flops_per_token

CPU = torch.device("cpu")
SIZES: dict[str, Any] = {"num_layers": 4, "hidden_size": 32, "num_heads": 4, "ffn_size": 64}


@pytest.fixture(params=["bert", "modernbert"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def settings(kind: str, encoder_settings: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return SIZES | encoder_settings[kind]


def build(settings: dict[str, Any]) -> Transformer:
    config = resolve(ModelConfig(**settings, causal=False, max_positions=32, init_std=0.2))
    model = Transformer(config, 60, compute_dtype=torch.float64)
    initialize(model, 1)
    return model


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, 60, shape, generator=torch.Generator().manual_seed(2))


def test_packed_documents_are_as_if_alone_forward_and_backward(settings: dict[str, Any]) -> None:
    lengths, model, ids = (5, 13, 7), build(settings), tokens(1, 25)
    bounds = torch.full((1, 26), 25, dtype=torch.int32)
    bounds[0, :4] = torch.tensor([0, 5, 18, 25])
    mask = torch.ones(1, 25, dtype=torch.bool)
    places = document_places(bounds, CPU, torch.float64, causal=False)
    packed = model.loss(ids, ids.flip(1), mask, places)
    packed.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    alone = torch.zeros((), dtype=torch.float64)
    for part, label in zip(ids.split(lengths, 1), ids.flip(1).split(lengths, 1), strict=True):
        alone = alone + model.loss(part, label, torch.ones_like(part, dtype=torch.bool))
    alone.backward()

    torch.testing.assert_close(packed, alone, rtol=1e-12, atol=1e-12)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-9, atol=1e-9)


def test_a_token_sees_both_sides_and_local_layers_only_their_window(
    settings: dict[str, Any],
) -> None:
    def seen(model: Transformer) -> set[int]:
        """Return the places that change what is predicted at place 15 of 31."""
        ids = tokens(1, 31)
        with torch.no_grad():
            before = model(ids)[0, 15]
            found = set()
            for place in range(31):
                other = ids.clone()
                other[0, place] = (other[0, place] + 1) % 60
                if not torch.equal(model(other)[0, 15], before):
                    found.add(place)
        return found

    assert seen(build(settings)) == set(range(31))
    if settings.get("local_window"):
        # Four layers of four tokens on either side; the first one is made local too.
        local = build(settings | {"num_layers": 2, "global_every": 1})
        assert seen(local) == set(range(31))
        near = build(settings | {"num_layers": 2, "global_every": 2})
        for block in near.blocks:
            block.is_local = True
        assert seen(near) == set(range(15 - 8, 15 + 9))


def test_the_loss_of_the_masked_rows_alone_is_the_loss_with_a_mask(
    settings: dict[str, Any],
) -> None:
    model, ids = build(settings), tokens(2, 20)
    mask = torch.rand(2, 20, generator=torch.Generator().manual_seed(3)) < 0.3
    results = []
    for rows in (None, mask.flatten().nonzero()[:, 0]):
        model.zero_grad()
        loss = model.loss(ids, ids.flip(0), mask, rows_N=rows)
        loss.backward()
        results.append([loss, *(p.grad for p in model.parameters() if p.grad is not None)])

    for whole, gathered in zip(*results, strict=True):
        torch.testing.assert_close(whole, gathered, rtol=1e-10, atol=1e-10)


def config(data: Path, **training: Any) -> PretrainConfig:
    return PretrainConfig(
        model=ModelConfig(**SIZES, causal=False),
        data=DataConfig(path=str(data), sequence_length=32),
        masking=MaskingConfig(share=0.2, whole_words=True),
        training=TrainingConfig(num_steps=4, global_batch_size=8, device="cpu", **training),
    )


def read(data: Path, rank: int = 0, copies: int = 1, first_step: int = 0, seed: int = 0) -> Any:
    settings = resolve_config(config(data, seed=seed))
    batches = Batches(open_data(settings, data), 8, Ranks(rank, copies), first_step, 4)
    try:
        return [batches.next() for _ in range(first_step, 4)]
    finally:
        batches.close()


def test_masks_are_the_same_for_any_number_of_ranks_and_after_a_restart(data_folder: Path) -> None:
    whole = read(data_folder)
    halves = [read(data_folder, rank, 2) for rank in (0, 1)]
    later = read(data_folder, first_step=2)

    for step, batch in enumerate(whole):
        for field in ("tokens_BT", "labels_BT", "mask_BT"):
            parts = [getattr(half[step], field) for half in halves]
            assert torch.equal(torch.cat(parts), getattr(batch, field))
            if step >= 2:
                assert torch.equal(getattr(later[step - 2], field), getattr(batch, field))
    other = read(data_folder, seed=1)
    assert not torch.equal(other[0].mask_BT, whole[0].mask_BT)


def test_labels_are_the_tokens_themselves_and_ends_of_documents_are_never_masked(
    data_folder: Path,
) -> None:
    batches = read(data_folder)
    labels = torch.cat([batch.labels_BT for batch in batches])
    shown = torch.cat([batch.tokens_BT for batch in batches])
    mask = torch.cat([batch.mask_BT for batch in batches])

    assert torch.equal(shown[~mask], labels[~mask])
    assert not mask[labels == 0].any()
    assert (labels == 0).any()
    assert 0.1 < mask[labels != 0].float().mean() < 0.3
    mask_id = 257  # the tokenizer has none: an id after its own
    assert (shown[mask] == mask_id).float().mean() == pytest.approx(0.8, abs=0.15)
    assert labels.max() < mask_id
    for batch in batches:
        (part,) = batch.micro_batches(8, CPU)
        assert part.rows_N is not None
        assert torch.equal(part.rows_N, batch.mask_BT.flatten().nonzero()[:, 0])


def test_a_sample_for_any_trainer_is_masked_as_those_of_batches_are() -> None:
    special = np.zeros(10, dtype=bool)
    special[0] = True
    masking = Masking(special, 10, seed=3, share=0.5)
    sample = {
        "tokens": np.arange(10),
        "labels": np.arange(1, 11),
        "loss_mask": np.ones(10, np.float32),
        "dataset_id": 4,
    }
    one = masking.sample(sample, 17)
    tokens_, mask = masking(np.arange(10)[None], np.ones((1, 10), bool), [17])

    np.testing.assert_array_equal(one["tokens"], tokens_[0])
    np.testing.assert_array_equal(one["loss_mask"], mask[0])
    np.testing.assert_array_equal(one["labels"], sample["tokens"])
    assert one["dataset_id"] == 4
    assert not mask[0, 0]


def test_a_vocabulary_of_special_tokens_alone_and_unknown_ids_are_refused() -> None:
    everywhere = np.ones((1, 2), bool)
    with pytest.raises(TokenRangeError, match="all 3 ids are special tokens"):
        Masking(np.ones(3, bool), 3)(np.zeros((1, 2), int), everywhere, [0])
    with pytest.raises(TokenRangeError, match="the id 5 has no flag"):
        Masking(np.zeros(3, bool), 3)(np.full((1, 2), 5), everywhere, [0])


def test_an_encoder_is_trained_scored_and_resumed_to_the_bit(
    kind: str, encoder_run: Callable[[str], Path], data_folder: Path, tmp_path: Path
) -> None:
    run = encoder_run(kind)
    report = read_report(run)
    assert report is not None
    assert report["masked_share"] == 0.3
    assert report["samples"] == []
    assert report["total"]["bits_per_byte"] > 0
    assert report["total"]["tokens"] < 0.5 * 3 * 3 * 90

    again = tmp_path / "again"
    shutil.copytree(run, again)
    for folder in (again / "checkpoints").iterdir():
        if folder.name != "step_00000003":
            shutil.rmtree(folder)
    (again / "pretrain_report.json").unlink()
    saved = load_model(run)
    import json

    from gristmill.trainer.checkpoint import find_checkpoints, read_facts

    pretrain(read_facts(find_checkpoints(run)[-1]).config, output=again)
    for name, tensor in load_model(again).model.state_dict().items():
        assert torch.equal(tensor, saved.model.state_dict()[name]), name
    assert json.dumps(read_metrics(again)[-1]["loss"]) == json.dumps(read_metrics(run)[-1]["loss"])
    with pytest.raises(ValueError, match="this model is an encoder"):
        generate(saved, ["the mill"])


@pytest.mark.slow
def test_the_loss_falls_below_the_entropy_of_the_unigrams(
    kind: str,
    tmp_path: Path,
    write_data: Callable[..., Path],
    encoder_settings: dict[str, dict[str, Any]],
) -> None:
    data = write_data(tmp_path / "data", num_documents=200)
    settings = config(data)
    settings = dataclasses.replace(
        settings,
        model=ModelConfig(**SIZES, causal=False, **encoder_settings[kind]),
        masking=MaskingConfig(share=0.15),
        optimizer=dataclasses.replace(settings.optimizer, learning_rate=3e-3),
        training=dataclasses.replace(settings.training, num_steps=180, global_batch_size=16),
        schedule=dataclasses.replace(settings.schedule, warmup_steps=20),
        log=dataclasses.replace(settings.log, tensorboard=False),
    )
    pretrain(settings, output=tmp_path / "run")
    total = (read_report(tmp_path / "run") or {})["total"]

    assert total["bits_per_byte"] < 0.9 * total["unigram_bits_per_byte"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"local_window": 8}, "only encoders have local attention"),
        ({"causal": False, "local_window": 7}, "an even number of tokens"),
        ({"causal": False, "num_experts": 4}, "encoders, and models with norms after, are dense"),
        ({"norm_position": "after", "num_experts": 4}, "are dense"),
    ],
)
def test_encoders_that_cannot_be_are_refused(model: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_model(ModelConfig(**model))


def test_masks_that_nothing_would_use_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[pretrain\.masking\] is set, but model\.causal = true"):
        check(PretrainConfig(masking=MaskingConfig(share=0.1)))
    with pytest.raises(ValueError, match=r"masking\.share is 0"):
        check(PretrainConfig(model=ModelConfig(causal=False), masking=MaskingConfig(share=0)))


def test_operations_are_counted_with_windows_and_masked_rows_only() -> None:
    model = resolve(ModelConfig(**SIZES, causal=False, vocab_multiple=1))
    whole = PretrainConfig(model=model, data=DataConfig(sequence_length=100))
    local = dataclasses.replace(whole, model=dataclasses.replace(model, local_window=8))
    few = dataclasses.replace(whole, masking=MaskingConfig(share=0.1))

    # Layers 1 and 2 of four see 9 tokens instead of 100; the fourth is global again.
    assert flops_per_token(whole, 50) - flops_per_token(local, 50) == 12 * 32 * 2 * 91
    saved = flops_per_token(whole, 50) - flops_per_token(few, 50)
    assert saved == pytest.approx(6 * 0.2 * 32 * (50 + 32))
