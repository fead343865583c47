"""What a training draws: phases, caps, changed blends on resume, further validation sets."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gristmill.indexed_dataset import DataChangedError, IndexedDatasetError, PrefixNotFoundError
from gristmill.trainer import PretrainConfig, pretrain
from gristmill.trainer.blend import require_samples
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
    from_dict,
    to_dict,
)
from gristmill.trainer.config_model import ModelConfig
from gristmill.trainer.data import Batches, TrainingData, open_data
from gristmill.trainer.grid import Ranks
from gristmill.trainer.metrics import read_metrics
from gristmill.trainer.plan import plan_pretrain
from gristmill.trainer.report import read_report

WriteData = Callable[..., Path]
GROUPS = ("ell_Grek", "eng_Latn", "hin_Deva")


def config(data: Path, **fields: Any) -> PretrainConfig:
    """Return a tiny training of 6 steps of 8 samples; fields are those of [pretrain.data]."""
    return PretrainConfig(
        model=ModelConfig(num_layers=1, hidden_size=32, num_heads=4, num_kv_heads=2, ffn_size=64),
        data=DataConfig(path=str(data), **{"sequence_length": 16, **fields}),
        schedule=ScheduleConfig(warmup_steps=2),
        training=TrainingConfig(num_steps=6, global_batch_size=8, micro_batch_size=4, device="cpu"),
        parallel=ParallelConfig(threads_per_rank=1),
        checkpoint=CheckpointConfig(every_steps=3, keep_last=0),
        evaluate=EvaluateConfig(enabled=False),
        log=LogConfig(tensorboard=False),
        generate=GenerateConfig(max_tokens=0),
    )


def opened(settings: PretrainConfig) -> TrainingData:
    return open_data(settings, Path("unused"))


def drawn(data: TrainingData, first: int, last: int) -> dict[str, list[int]]:
    """Return the samples that each group gives at the positions from `first` to `last`."""
    found: dict[str, list[int]] = {name: [] for name in data.blend.names}
    for position in range(first, last):
        number, index = data.blend.locate(position)
        found[data.blend.names[number]].append(index)
    return found


PHASES = (
    PhaseConfig(until_tokens=250, weights={"ell_Grek": 0, "eng_Latn": 1, "hin_Deva": 0}),
    PhaseConfig(sequence_length=32, alpha=0.0),
)


def test_a_phase_changes_mix_and_length_with_a_whole_step(data_folder: Path) -> None:
    data = opened(config(data_folder, phases=PHASES))
    stream = Batches(data, 8, Ranks(), 0, 4)
    shapes = [tuple(stream.next().tokens_BT.shape) for _ in range(4)]
    stream.close()

    assert shapes == [(8, 16), (8, 16), (8, 32), (8, 32)]
    first, second = drawn(data, 0, 16), drawn(data, 16, 16 + 30)
    assert {name: len(found) for name, found in first.items()} == {
        "ell_Grek": 0,
        "eng_Latn": 16,
        "hin_Deva": 0,
    }
    assert {name: len(found) for name, found in second.items()} == dict.fromkeys(GROUPS, 10)
    assert second["eng_Latn"][0] == 8  # 16 samples of 16 tokens are 8 of 32


def test_a_training_through_phases_counts_their_tokens(data_folder: Path, tmp_path: Path) -> None:
    settings = config(data_folder, phases=PHASES)
    result = pretrain(settings, output=tmp_path)

    tokens = [record["consumed_tokens"] for record in read_metrics(tmp_path)]
    assert tokens == [128, 256, 512, 768, 1024, 1280]
    assert result.report["consumed_tokens"] == 1280
    plan = plan_pretrain(settings, output=tmp_path / "other")
    assert "phase 1 of 2: tokens 0 to 256, 16 samples of 16 from 3 groups" in plan
    assert "phase 2 of 2: tokens 256 to 1,280, 32 samples of 32 from 3 groups" in plan


def test_a_config_with_phases_survives_the_checkpoint(data_folder: Path) -> None:
    settings = config(data_folder, phases=PHASES, max_epochs_of={"eng_Latn": 2.0})

    assert from_dict(PretrainConfig, json.loads(json.dumps(to_dict(settings)))) == settings


@pytest.mark.parametrize(
    "changed",
    [
        {"alpha": 0.1},
        {"max_epochs": 9.0},
        {"phases": (PhaseConfig(until_tokens=3200), PhaseConfig(alpha=0.0))},
    ],
)
def test_a_changed_blend_goes_on_where_each_group_was_if_that_is_allowed(
    data_folder: Path, changed: dict[str, Any]
) -> None:
    before = opened(config(data_folder))
    kept = json.loads(json.dumps(before.state(40)))
    other = config(data_folder, **changed)
    with pytest.raises(DataChangedError, match="allow_changed_blend = true to go on"):
        opened(other).resumed(other, kept, "step_5")
    other = dataclasses.replace(
        other, data=dataclasses.replace(other.data, allow_changed_blend=True)
    )
    after = opened(other).resumed(other, kept, "step_5")

    first, second = drawn(before, 0, 40), drawn(after, 40, 100)
    for name in GROUPS:
        assert first[name] + second[name] == list(range(len(first[name]) + len(second[name])))
    # A later checkpoint of the changed run goes on by itself, whether or not changes are allowed.
    strict = dataclasses.replace(
        other, data=dataclasses.replace(other.data, allow_changed_blend=False)
    )
    later = opened(strict).resumed(strict, after.state(64), "step_8")
    assert [later.blend.locate(p) for p in range(64, 90)] == [
        after.blend.locate(p) for p in range(64, 90)
    ]


def test_a_group_may_join_and_another_leave_a_training(tmp_path: Path, write_data: Any) -> None:
    data = write_data(tmp_path / "data")
    settings = config(data, allow_changed_blend=True)
    before = opened(settings)
    kept = before.state(40)
    write_data(tmp_path / "more", texts={"fra_Latn": "le moulin tourne et le meunier dort "})
    for file in (tmp_path / "more" / "train").iterdir():
        file.rename(data / "train" / file.name)
    for file in (data / "train").glob("eng_Latn.*"):
        file.unlink()

    after = opened(settings).resumed(settings, kept, "step_5")

    first, second = drawn(before, 0, 40), drawn(after, 40, 100)
    assert second["fra_Latn"] == list(range(len(second["fra_Latn"])))
    for name in ("ell_Grek", "hin_Deva"):
        assert first[name] + second[name] == list(range(len(first[name]) + len(second[name])))
    sources = after.state(100)["consumed"]["sources"]
    assert sources["eng_Latn"]["tokens"] == 16 * len(first["eng_Latn"])  # should it come back


def test_rewritten_tokens_are_refused_whatever_is_allowed(tmp_path: Path, write_data: Any) -> None:
    settings = config(write_data(tmp_path / "one"), allow_changed_blend=True)
    other = config(write_data(tmp_path / "two", num_documents=13), allow_changed_blend=True)

    with pytest.raises(DataChangedError, match="eng_Latn has other tokens") as error:
        opened(other).resumed(other, opened(settings).state(8), "step_1")
    assert "allow_changed_blend" not in str(error.value)


def test_a_training_goes_on_with_a_changed_blend_from_its_checkpoint(
    data_folder: Path, tmp_path: Path
) -> None:
    first = config(data_folder)
    short = dataclasses.replace(
        first,
        training=dataclasses.replace(first.training, num_steps=3),
        schedule=ScheduleConfig(kind="constant", warmup_steps=2),
    )
    pretrain(short, output=tmp_path)
    longer = dataclasses.replace(
        short,
        training=first.training,
        data=dataclasses.replace(first.data, alpha=0.0, allow_changed_blend=True),
    )
    result = pretrain(longer, output=tmp_path)

    assert (result.step, result.finished) == (6, True)
    facts = json.loads((result.checkpoint / "checkpoint.json").read_text())
    assert facts["data"]["start"]["samples"] == 24
    assert facts["data"]["consumed"]["samples"] == 48


def test_more_steps_than_the_caps_leave_are_refused_before_anything_starts(
    data_folder: Path, tmp_path: Path
) -> None:
    settings = config(data_folder, max_epochs=0.1)

    with pytest.raises(IndexedDatasetError, match="the training needs 48 samples, more than"):
        pretrain(settings, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(IndexedDatasetError, match="Raise max_epochs"):
        plan_pretrain(settings, output=tmp_path / "run")
    require_samples(opened(config(data_folder, max_epochs_of={"eng_Latn": 0.1})).blend, 48)


def test_caps_and_shares_of_unknown_groups_are_refused(data_folder: Path) -> None:
    with pytest.raises(IndexedDatasetError, match="max_epochs_of names deu; the train groups are"):
        opened(config(data_folder, max_epochs_of={"deu": 2.0}))
    with pytest.raises(IndexedDatasetError, match="the manifests of its shards say"):
        opened(config(data_folder, weights_from_manifests=True))


def test_further_validation_sets_are_scored_by_name(
    tmp_path: Path, data_folder: Path, write_data: Any
) -> None:
    other = write_data(tmp_path / "other", texts={"fra_Latn": "le moulin tourne "})
    settings = dataclasses.replace(
        config(data_folder, validation={"news": str(other / "validation")}),
        evaluate=EvaluateConfig(every_steps=3, max_windows=2, final_max_windows=2),
    )
    pretrain(settings, output=tmp_path / "run")

    names = {*GROUPS, "news/fra_Latn"}
    report = read_report(tmp_path / "run")
    assert report is not None
    assert set(report["languages"]) == names
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert all(f'"loss/{name}"' in text for name in names)
    broken = config(data_folder, validation={"news": str(tmp_path / "missing")})
    with pytest.raises(PrefixNotFoundError, match="there is no folder"):
        opened(dataclasses.replace(broken, evaluate=EvaluateConfig()))
