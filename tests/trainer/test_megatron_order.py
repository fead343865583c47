"""`data.order = "megatron"`: samples are Megatron's, whatever the layout, and after a resume."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gristmill.indexed_dataset import (
    DataChangedError,
    IndexedDatasetBuilder,
    IndexedDatasetError,
    Phase,
    PhasedBlend,
    build_megatron_blend,
)
from gristmill.trainer import PretrainConfig, pretrain
from gristmill.trainer.config import (
    CheckpointConfig,
    DataConfig,
    EvaluateConfig,
    GenerateConfig,
    LogConfig,
    ParallelConfig,
    PhaseConfig,
    ScheduleConfig,
    TrainingConfig,
)
from gristmill.trainer.config_check import check
from gristmill.trainer.config_model import ModelConfig
from gristmill.trainer.data import Batches, open_data
from gristmill.trainer.grid import Ranks
from gristmill.trainer.metrics import read_metrics
from gristmill.trainer.plan import plan_pretrain

WEIGHTS = {"ell_Grek": 0.3, "eng_Latn": 0.5, "hin_Deva": 0.2}
SEED, STEPS, BATCH, LENGTH = 1234, 6, 8, 16


def config(data: Path, **fields: Any) -> PretrainConfig:
    given: dict[str, Any] = {"weights": WEIGHTS, "sequence_length": LENGTH, **fields}
    return PretrainConfig(
        model=ModelConfig(num_layers=1, hidden_size=32, num_heads=4, num_kv_heads=2, ffn_size=64),
        data=DataConfig(path=str(data), order="megatron", **given),
        schedule=ScheduleConfig(warmup_steps=2, kind="constant"),
        training=TrainingConfig(
            num_steps=STEPS, global_batch_size=BATCH, micro_batch_size=4, device="cpu", seed=SEED
        ),
        parallel=ParallelConfig(threads_per_rank=1),
        checkpoint=CheckpointConfig(every_steps=3, keep_last=0),
        evaluate=EvaluateConfig(enabled=False),
        log=LogConfig(tensorboard=False),
        generate=GenerateConfig(max_tokens=0),
    )


def tokens_of(settings: PretrainConfig, data: Ranks = Ranks()) -> np.ndarray:  # noqa: B008
    """Return the ids of one copy of the model, step after step: int64[steps, samples, S]."""
    batches = Batches(open_data(settings, Path("unused")), BATCH, data, 0, STEPS)
    found = np.stack([batches.next().tokens_BT.numpy() for _ in range(STEPS)])
    batches.close()
    return found


def test_a_training_draws_what_megatron_draws_for_the_same_arguments(data_folder: Path) -> None:
    """build_megatron_blend is held against megatron-core itself in tests/indexed_dataset."""
    prefixes = [data_folder / "train" / name for name in WEIGHTS]
    theirs = build_megatron_blend(
        prefixes, LENGTH, weights=list(WEIGHTS.values()), num_samples=STEPS * BATCH, seed=SEED
    )

    found = tokens_of(config(data_folder)).reshape(-1, LENGTH)

    expected = np.stack([theirs.sample(position)["tokens"] for position in range(STEPS * BATCH)])
    assert np.array_equal(found, expected)
    assert not np.array_equal(found[:BATCH], found[BATCH : 2 * BATCH])


@pytest.mark.parametrize("copies", [2, 4])
def test_every_number_of_copies_sees_the_same_samples_in_each_step(
    copies: int, data_folder: Path
) -> None:
    settings = config(data_folder)

    parts = [tokens_of(settings, Ranks(rank, copies)) for rank in range(copies)]

    assert np.array_equal(np.concatenate(parts, axis=1), tokens_of(settings))


def test_a_resumed_training_repeats_the_uninterrupted_one_bit_by_bit(
    data_folder: Path, tmp_path: Path
) -> None:
    settings = config(data_folder)
    pretrain(settings, output=tmp_path / "whole")
    pretrain(settings, output=tmp_path / "cut")
    for last in (tmp_path / "cut" / "checkpoints").glob("step_00000006*"):
        last.rename(tmp_path / last.name)
    (tmp_path / "cut" / "pretrain_report.json").unlink()
    pretrain(settings, output=tmp_path / "cut")

    whole, cut = (read_metrics(tmp_path / name) for name in ("whole", "cut"))
    assert [r["loss"] for r in whole[3:]] == [r["loss"] for r in cut[-3:]]
    state = json.loads(
        (tmp_path / "cut/checkpoints/step_00000006/checkpoint.json").read_text(encoding="utf-8")
    )["data"]
    sources = state["consumed"]["sources"]
    assert sum(source["tokens"] for source in sources.values()) == STEPS * BATCH * LENGTH
    assert {source["order"] for source in sources.values()} == {"megatron"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"training": {"num_steps": 9}}, r"number of samples.*num_steps.*Put the old data"),
        ({"data": {"weights": {**WEIGHTS, "eng_Latn": 0.6}}}, "the weights or the number"),
        ({"data": {"weights": {**WEIGHTS, "eng_Latn": 0}}}, "eng_Latn is gone"),
    ],
)
def test_another_length_or_blend_is_another_order_and_no_resume(
    change: dict[str, dict[str, Any]], words: str, data_folder: Path
) -> None:
    before = config(data_folder)
    state = open_data(before, Path("unused")).state(3 * BATCH)
    (section, fields), *_ = change.items()
    part = dataclasses.replace(getattr(before, section), **fields)
    after = dataclasses.replace(before, **{section: part})

    with pytest.raises(DataChangedError, match=words) as error:
        open_data(after, Path("unused")).resumed(after, state, "step_3")

    assert "allow_changed_blend" not in str(error.value)


def test_groups_of_weight_0_are_left_out_and_the_plan_counts_the_rest(
    data_folder: Path, tmp_path: Path
) -> None:
    settings = config(data_folder, weights={**WEIGHTS, "eng_Latn": 0})

    data = open_data(settings, Path("unused"))
    plan = plan_pretrain(settings, output=tmp_path)

    assert data.blend.names == ["ell_Grek", "hin_Deva"]
    assert f"{STEPS * BATCH} samples of {LENGTH} from 2 groups" in plan
    assert "60.00%" in plan


def test_weights_may_come_from_the_temperature_and_one_group_needs_none(
    data_folder: Path, tmp_path: Path, write_data: Callable[..., Path]
) -> None:
    blended = open_data(config(data_folder, weights={}, alpha=0.5), Path("unused")).blend
    one = write_data(tmp_path / "one", texts={"eng_Latn": "the mill grinds the grain "})
    single = open_data(config(one, weights={}), Path("unused")).blend

    assert sum(blended.epochs(STEPS * BATCH)) > 0
    theirs = build_megatron_blend(
        [one / "train" / "eng_Latn"], LENGTH, num_samples=STEPS * BATCH, seed=SEED
    )
    for position in (0, 7, STEPS * BATCH - 1):
        assert np.array_equal(single.sample(position)["tokens"], theirs.sample(position)["tokens"])


def test_the_shards_of_a_group_are_drawn_as_one_merged_dataset(tmp_path: Path) -> None:
    documents = [np.arange(start, start + 13) for start in range(0, 260, 13)]
    for name, part in (("a", documents[:8]), ("b", documents[8:]), ("whole", documents)):
        builder = IndexedDatasetBuilder(tmp_path / name, vocab_size=300)
        for document in part:
            builder.add_document(document)
        builder.finalize(document_order="shuffled", group="group")

    drawn = [
        build_megatron_blend([prefixes], 8, num_samples=50, seed=SEED)
        for prefixes in ([tmp_path / "a", tmp_path / "b"], tmp_path / "whole")
    ]

    for position in range(50):
        one, other = (blend.sample(position)["tokens"] for blend in drawn)
        assert np.array_equal(one, other)


@pytest.mark.parametrize(
    "fields",
    [
        {"phases": (PhaseConfig(alpha=0.5),)},
        {"max_epochs": 2.0},
        {"max_epochs_of": {"eng_Latn": 1.0}},
        {"block_length": 32},
        {"allow_changed_blend": True},
    ],
)
def test_what_megatron_has_no_counterpart_for_is_refused(fields: dict[str, Any]) -> None:
    (name,) = fields

    with pytest.raises(ValueError, match=rf"data\.{name}: Megatron's order.*Leave that out"):
        check(config(Path("data"), **fields))


def test_a_blend_of_phases_says_what_the_order_needs(data_folder: Path) -> None:
    prefix = [data_folder / "train" / "eng_Latn"]
    with pytest.raises(IndexedDatasetError, match="Give both, or neither"):
        PhasedBlend(prefix, [Phase(sequence_length=8)], order="megatron")
    with pytest.raises(IndexedDatasetError, match="Give both, or neither"):
        PhasedBlend(prefix, [Phase(sequence_length=8)], num_samples=9)
    with pytest.raises(IndexedDatasetError, match="knows no until_tokens, max_epochs"):
        PhasedBlend(
            prefix,
            [Phase(sequence_length=8, max_epochs=2, until_tokens=64)],
            order="megatron",
            num_samples=9,
        )
