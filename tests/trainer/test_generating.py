"""Generation: batches, cuts, files and ranks change nothing but what they are asked to."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from gristmill.cli import main
from gristmill.trainer import PretrainConfig, pretrain
from gristmill.trainer.config import (
    DataConfig,
    EvaluateConfig,
    GenerateConfig,
    OptimizerConfig,
    ParallelConfig,
    TrainingConfig,
)
from gristmill.trainer.config_model import ModelConfig
from gristmill.trainer.generating import read_rows
from gristmill.trainer.model import Transformer, initialize, resolve
from gristmill.trainer.sampler import Sampler
from gristmill.trainer.sampling import continue_rows, generate

SMALL = ModelConfig(num_layers=2, hidden_size=32, num_heads=4, num_kv_heads=2, init_std=0.3)
MODELS = {
    "llama": SMALL,
    "experts": dataclasses.replace(SMALL, num_experts=4),
    "gpt2": dataclasses.replace(
        SMALL,
        num_kv_heads=0,
        norm="layer",
        positions="learned",
        activation="gelu",
        biases=True,
        max_positions=40,
    ),
}
SAMPLERS = [
    Sampler(temperature=0),
    Sampler(temperature=0.9),
    Sampler(temperature=1.3, top_k=7),
    Sampler(top_p=0.7),
    Sampler(top_k=30, top_p=0.8, min_p=0.05),
]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_batch_of_different_lengths_says_what_each_prompt_says_alone(
    name: str, sampler: Sampler
) -> None:
    model = Transformer(resolve(MODELS[name]), 90, compute_dtype=torch.float64)
    initialize(model, seed=3)
    chance = torch.Generator().manual_seed(1)
    rows = [
        torch.randint(0, 90, (length,), generator=chance).tolist() for length in (5, 1, 17, 5, 9)
    ]

    together = continue_rows(model, rows, 20, sampler, {11}, range(5))

    alone = [continue_rows(model, [row], 20, sampler, {11}, [i])[0] for i, row in enumerate(rows)]
    assert together == alone
    assert len({tuple(row) for row in together}) > 1


def test_draws_follow_the_softmax_of_what_the_cuts_leave() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0, -torch.inf]])
    generator = torch.Generator().manual_seed(0)

    def shares(sampler: Sampler) -> torch.Tensor:
        drawn = torch.cat([sampler.draw(logits, [generator]) for _ in range(4000)])
        return drawn.bincount(minlength=5) / 4000

    expected = logits[0].softmax(0)
    torch.testing.assert_close(shares(Sampler()), expected, rtol=0, atol=0.03)
    kept = torch.where(expected > 0.06, expected, 0.0)  # min_p: 0.1 of 0.64
    torch.testing.assert_close(shares(Sampler(min_p=0.1)), kept / kept.sum(), rtol=0, atol=0.03)


def test_the_nucleus_is_found_where_it_is_wider_than_the_first_candidates() -> None:
    logits = torch.zeros(1, 2000)
    generator = torch.Generator().manual_seed(0)

    drawn = [int(Sampler(top_p=0.5).draw(logits, [generator])) for _ in range(400)]

    assert max(drawn) < 1000  # of equal ones the first
    assert max(drawn) > 900


@pytest.fixture(scope="module")
def trained(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("generating") / "run"
    settings = PretrainConfig(
        model=SMALL,
        data=DataConfig(path=str(data_folder), sequence_length=32),
        optimizer=OptimizerConfig(learning_rate=1e-2),
        training=TrainingConfig(num_steps=2, global_batch_size=4, micro_batch_size=4, device="cpu"),
        parallel=ParallelConfig(threads_per_rank=1),
        evaluate=EvaluateConfig(enabled=False),
        generate=GenerateConfig(max_tokens=0),
    )
    pretrain(settings, output=output)
    return output


PROMPTS = ["the mill", "", "ο μύλος αλέθει το σιτάρι", "a"]


def test_prompts_come_from_a_file_and_go_to_one(trained: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in PROMPTS))
    words = ["generate", str(trained), "--input", str(prompts), "--max-tokens", "8"]

    main([*words, "--output", str(tmp_path / "out.jsonl"), "--batch-size", "3", "--seed", "5"])

    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["prompt"] for line in lines] == PROMPTS
    expected = generate(trained, PROMPTS, max_tokens=8, top_k=50, seed=5, batch_size=1)
    assert [line["text"] for line in lines] == expected
    with pytest.raises(SystemExit):
        main([*words, "--output", str(tmp_path / "out.jsonl")])


@pytest.mark.slow
@pytest.mark.parametrize("settings", [["--temperature", "0"], ["--top-k", "0", "--top-p", "0.8"]])
def test_two_ranks_say_what_one_process_says(
    settings: list[str], trained: Path, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS))
    words = ["generate", str(trained), "--input", str(prompts), "--max-tokens", "8", *settings]

    main([*words, "--output", str(tmp_path / "one.jsonl")])
    main([*words, "--output", str(tmp_path / "two.jsonl"), "--tensor-parallel-size", "2"])

    assert (tmp_path / "one.jsonl").read_text() == (tmp_path / "two.jsonl").read_text()


def test_a_file_without_prompts_is_refused_by_line(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a"}\n{"text": "b"}\n')
    (tmp_path / "empty.txt").write_text("")

    with pytest.raises(ValueError, match="line 2 has no prompt"):
        read_rows(tmp_path / "bad.jsonl")
    with pytest.raises(ValueError, match="has no prompts"):
        read_rows(tmp_path / "empty.txt")
