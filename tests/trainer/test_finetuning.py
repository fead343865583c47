"""Fine-tuning as a user meets it: full and low-rank, resumed, in any layout, with a loss mask."""

from __future__ import annotations

import dataclasses
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load

from gristmill.indexed_dataset import IndexedDatasetBuilder
from gristmill.indexed_dataset.side_streams import SideStream
from gristmill.trainer import CheckpointError, PretrainConfig, describe_checkpoint, pretrain
from gristmill.trainer.checkpoint import find_checkpoints, load_tensors, read_facts
from gristmill.trainer.config import (
    FINETUNING,
    CheckpointConfig,
    DataConfig,
    EvaluateConfig,
    GenerateConfig,
    LogConfig,
    OptimizerConfig,
    ParallelConfig,
    ScheduleConfig,
    TrainingConfig,
)
from gristmill.trainer.config_lora import LoraConfig
from gristmill.trainer.config_model import ModelConfig
from gristmill.trainer.data import open_data, read_batch
from gristmill.trainer.hugging_face_error import HuggingFaceError
from gristmill.trainer.lora import add_lora, initialize_lora
from gristmill.trainer.metrics import read_metrics
from gristmill.trainer.model import Transformer
from gristmill.trainer.places import document_places
from gristmill.trainer.report import read_report
from gristmill.trainer.start import load_start, load_trained

STEPS = 4
LORA = LoraConfig(rank=4, alpha=16.0)
TALKS = [(f"say {word}", f"{word} it is") for word in ("mill", "grain", "wind", "song", "water")]


@pytest.fixture(scope="module")
def base(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of bytes, pretrained for a few steps."""
    output = tmp_path_factory.mktemp("base")
    settings = PretrainConfig(
        model=ModelConfig(num_layers=2, hidden_size=32, num_heads=4, num_kv_heads=2, ffn_size=64),
        data=DataConfig(path=str(data_folder), sequence_length=32),
        optimizer=OptimizerConfig(learning_rate=1e-2),
        schedule=ScheduleConfig(warmup_steps=2),
        training=TrainingConfig(num_steps=3, global_batch_size=8, micro_batch_size=8, device="cpu"),
        parallel=ParallelConfig(threads_per_rank=1),
        log=LogConfig(tensorboard=False),
        evaluate=EvaluateConfig(enabled=False),
        generate=GenerateConfig(max_tokens=0),
    )
    pretrain(settings, output=output)
    return output


@pytest.fixture(scope="module")
def talks(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Conversations of one turn each, with the tokens of a template and a loss mask."""
    folder = tmp_path_factory.mktemp("talks") / "data"
    tokenizer = Tokenizer.from_file(str(data_folder / "tokenizer" / "tokenizer.json"))
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    (folder / "tokenizer").mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
    start, end = 257, 258
    for split, count in (("train", 60), ("validation", 6)):
        builder = IndexedDatasetBuilder(
            folder / split / "talks", vocab_size=259, streams={"loss_mask": "uint8"}
        )
        for number in range(count):
            question, answer = (tokenizer.encode(text).ids for text in TALKS[number % len(TALKS)])
            tokens = [start, *question, end, start, *answer, end, 0]
            mask = [0] * (len(question) + 3) + [1] * (len(answer) + 1) + [0]
            builder.add_document(tokens, streams={"loss_mask": mask})
        builder.finalize(
            eod_id=0,
            tokenizer={"path": "../tokenizer", "fingerprint": "f" * 32},
            document_order="shuffled",
            split=split,
            group="talks",
        )
    return folder


def config(base: Path, talks: Path, **changes: Any) -> PretrainConfig:
    tiny = dataclasses.replace(
        FINETUNING,
        data=dataclasses.replace(FINETUNING.data, path=str(talks), sequence_length=64),
        optimizer=OptimizerConfig(learning_rate=1e-2, weight_decay=0.0),
        schedule=ScheduleConfig(warmup_steps=1),
        training=TrainingConfig(
            num_steps=STEPS, global_batch_size=4, micro_batch_size=2, device="cpu",
            init_from=str(base), precision="float32",
        ),
        parallel=ParallelConfig(threads_per_rank=1),
        checkpoint=CheckpointConfig(every_steps=2, keep_last=0),
        log=LogConfig(tensorboard=False),
    )  # fmt: skip
    sections = {
        name: dataclasses.replace(getattr(tiny, name), **fields)
        for name, fields in changes.items()
        if isinstance(fields, dict)
    }
    rest = {name: value for name, value in changes.items() if not isinstance(value, dict)}
    return dataclasses.replace(tiny, **sections, **rest)


@pytest.fixture(scope="module")
def adapted(base: Path, talks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("adapted")
    pretrain(config(base, talks, lora=LORA), output=output)
    return output


def state(checkpoint: Path) -> dict[str, torch.Tensor]:
    metadata = FileSystemReader(checkpoint / "state").read_metadata().state_dict_metadata
    tensors = {key: torch.empty(value.size) for key, value in metadata.items()}
    with warnings.catch_warnings(action="ignore"):
        load(tensors, storage_reader=FileSystemReader(checkpoint / "state"), no_dist=True)
    return tensors


def test_only_what_the_assistant_says_is_scored(base: Path, talks: Path) -> None:
    data = open_data(config(base, talks), talks.parent)
    samples = [data.blend.sample(number) for number in range(6)]

    for sample in samples:
        scored = sample["labels"][sample["loss_mask"] > 0]
        # Answers with their end of turn; no question, no start, no end of a document.
        said = bytes(scored.astype(np.uint8) * 0 + 1)  # one entry a scored token
        assert len(said) == len(scored)
        text = Tokenizer.from_file(str(talks / "tokenizer" / "tokenizer.json")).decode(
            scored.tolist(), skip_special_tokens=False
        )
        answers = [part for part in text.split("<|im_end|>") if part]
        assert answers
        assert set(answers) <= {answer for _, answer in TALKS}
        assert text.endswith("<|im_end|>")


def test_no_conversation_is_cut_and_each_is_given_once_an_epoch(base: Path, talks: Path) -> None:
    data = open_data(config(base, talks), talks.parent)
    (dataset,) = data.blend.phases[0].blend.datasets
    pieces = [span for number in range(dataset.samples_per_epoch) for span in dataset.spans(number)]

    whole = {
        (start, start + length)
        for shard in dataset.split.shards
        for start, length in zip(
            shard.document_starts(0, shard.num_tokens).tolist(),
            shard.document_lengths_between(0, shard.num_documents).tolist(),
            strict=True,
        )
    }
    assert len(pieces) == len(set(pieces)) == 60
    assert set(pieces) == whole


@pytest.mark.parametrize("lora", [LoraConfig(), LORA], ids=["full", "low-rank"])
def test_packed_conversations_train_as_separate_ones_do(
    base: Path, talks: Path, lora: LoraConfig
) -> None:
    data = open_data(config(base, talks), talks.parent)
    (dataset,) = data.blend.phases[0].blend.datasets
    (shard,) = dataset.split.shards
    masks = SideStream(shard, "loss_mask")
    facts = read_facts(find_checkpoints(base)[-1])
    model = Transformer(facts.config.model, 259, compute_dtype=torch.float64)
    add_lora(model, lora)
    load_start(model, base)
    if lora.rank:
        initialize_lora(model, 0)
        for name, parameter in model.named_parameters():
            if name.endswith("lora_b"):
                torch.nn.init.normal_(parameter, 0, 0.1)

    def gradients() -> dict[str, torch.Tensor]:
        found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        return found

    for number in range(4):
        batch = read_batch([dataset.sample(number)], 259, "here")
        assert batch.bounds_BN is not None
        places = document_places(batch.bounds_BN, torch.device("cpu"), torch.float64)
        packed = model.loss(batch.tokens_BT, batch.labels_BT, batch.mask_BT, places)
        packed.backward()
        together = gradients()
        apart = torch.zeros((), dtype=torch.float64)
        targets = 0
        for start, stop in dataset.spans(number):
            tokens = torch.from_numpy(shard.read_tokens(start, stop - start).astype(np.int64))
            mask = torch.from_numpy(masks.read(start, stop - start)).bool()
            loss = model.loss(tokens[None, :-1], tokens[None, 1:], mask[None, 1:])
            loss.backward()
            apart += loss.detach()
            targets += int(mask[1:].sum())

        assert len(dataset.spans(number)) > 1
        assert batch.num_valid == targets
        torch.testing.assert_close(packed.detach(), apart, rtol=1e-12, atol=0)
        for name, gradient in gradients().items():
            torch.testing.assert_close(together[name], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("lora", [LoraConfig(), LORA], ids=["full", "low-rank"])
def test_a_resumed_fine_tuning_equals_one_in_one_go_to_the_bit(
    base: Path, talks: Path, tmp_path: Path, lora: LoraConfig
) -> None:
    settings = config(base, talks, lora=lora)
    pretrain(settings, output=tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(find_checkpoints(tmp_path / "cut")[-1])
    (tmp_path / "cut" / "pretrain_report.json").unlink()

    pretrain(settings, output=tmp_path / "cut")

    one, other = (state(find_checkpoints(tmp_path / name)[-1]) for name in ("whole", "cut"))
    assert one.keys() == other.keys()
    for key in one:
        assert torch.equal(one[key], other[key]), key


def test_low_rank_checkpoints_hold_the_low_rank_matrices_alone(adapted: Path) -> None:
    saved = state(find_checkpoints(adapted)[-1])

    assert {key.split(".")[0] for key in saved} == {"weight", "mean", "square"}
    assert all(key.endswith((".lora_a", ".lora_b")) for key in saved)
    assert len(saved) == 3 * 2 * 7 * 2  # kinds, A and B, targets, blocks
    assert "rank 4" in describe_checkpoint(adapted)


def test_merged_weights_compute_what_the_pairs_beside_the_weights_do(
    base: Path, talks: Path, adapted: Path
) -> None:
    folder = find_checkpoints(adapted)[-1]
    facts = read_facts(folder)
    tokens = torch.randint(0, 259, (2, 40), generator=torch.Generator().manual_seed(0))
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        apart = Transformer(facts.config.model, 259, compute_dtype=dtype)
        add_lora(apart, LORA)
        load_start(apart, base)
        pairs = {n: p for n, p in apart.named_parameters() if p.requires_grad}
        load_tensors({f"weight.{n}": p.detach() for n, p in pairs.items()}, folder)
        merged = Transformer(facts.config.model, 259, compute_dtype=dtype)
        load_trained(merged, folder, facts)
        plain = Transformer(facts.config.model, 259, compute_dtype=dtype)
        load_start(plain, base)

        with torch.no_grad():
            difference = (apart(tokens) - merged(tokens)).abs()
            change = (plain(tokens) - merged(tokens)).abs()
        assert difference[difference.isfinite()].max() < tolerance
        assert change[change.isfinite()].max() > 1e-2


def test_the_model_itself_stays_as_it_was_under_low_rank_adaptation(
    base: Path, talks: Path, adapted: Path
) -> None:
    losses = [record["loss"] for record in read_metrics(adapted)]

    assert losses[-1] < losses[0]
    assert read_report(adapted)["total"]["loss"] < losses[0]  # type: ignore[index]


def test_new_ids_begin_as_the_mean_of_the_known_ones(base: Path) -> None:
    facts = read_facts(find_checkpoints(base)[-1])
    before = Transformer(facts.config.model, 257)
    load_start(before, base)
    grown = Transformer(facts.config.model, 259)
    load_start(grown, base)

    known = before.embedding.weight[:257]
    assert torch.equal(grown.embedding.weight[:257], known)
    torch.testing.assert_close(grown.embedding.weight[257], known.double().mean(dim=0).float())
    assert torch.equal(grown.embedding.weight[257], grown.embedding.weight[258])


def test_epochs_are_turned_into_steps(base: Path, talks: Path, tmp_path: Path) -> None:
    settings = config(base, talks, training={"num_steps": 0, "num_epochs": 1.5})
    result = pretrain(settings, output=tmp_path)

    per_epoch = open_data(settings, tmp_path).blend.phases[0].blend.datasets[0].samples_per_epoch
    assert result.step == -(-int(np.ceil(1.5 * per_epoch)) // 4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training": {"num_epochs": 2.0}}, "one of them says how long"),
        ({"lora": LoraConfig(alpha=8.0)}, "lora.rank is 0"),
        ({"lora": LoraConfig(rank=4, targets=("query", "query"))}, "each once"),
        ({"lora": LORA, "training": {"init_from": ""}}, "init_from is empty"),
        ({"lora": LORA, "optimizer": {"kind": "muon"}}, "muon"),
        ({"model": {"hidden_size": 64}}, "hidden_size = 64"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(
    base: Path, talks: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        pretrain(config(base, talks, **changes), output=tmp_path)


def test_data_of_another_tokenizer_is_refused(base: Path, talks: Path, tmp_path: Path) -> None:
    other = tmp_path / "data"
    shutil.copytree(talks, other)
    path = other / "tokenizer" / "tokenizer.json"
    values = json.loads(path.read_text())
    values["added_tokens"][0]["content"] = "<|other|>"
    path.write_text(json.dumps(values))

    with pytest.raises(HuggingFaceError, match="tokens are of another tokenizer"):
        pretrain(config(base, other), output=tmp_path / "run")


def test_a_low_rank_checkpoint_is_no_model_to_start_from_and_says_what_to_do(
    adapted: Path, talks: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="gristmill export"):
        pretrain(config(adapted, talks), output=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "layout",
    [
        {"tensor_parallel_size": 2},
        {"tensor_parallel_size": 2, "sequence_parallel": True},
        {"data_parallel_size": 2, "shard": "full"},
    ],
    ids=["tensor", "sequence", "shards"],
)
@pytest.mark.parametrize("lora", [LoraConfig(), LORA], ids=["full", "low-rank"])
def test_two_ranks_fine_tune_as_one_process(
    base: Path, talks: Path, tmp_path: Path, layout: dict[str, Any], lora: LoraConfig
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    pretrain(config(base, talks, lora=lora, training={"precision": "float64"}), output=one)
    pretrain(
        config(base, talks, lora=lora, training={"precision": "float64"}, parallel=layout),
        output=two,
    )

    first, second = (state(find_checkpoints(run)[-1]) for run in (one, two))
    assert first.keys() == second.keys()
    for key in first:
        torch.testing.assert_close(first[key], second[key], rtol=1e-8, atol=1e-10)
