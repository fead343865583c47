"""Exports of a low-rank fine-tuning: merged for transformers, alone for PEFT, the same logits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from gristmill.trainer import export_model
from gristmill.trainer.adapter_export import export_adapter
from gristmill.trainer.checkpoint import Facts, locate, read_facts
from gristmill.trainer.checkpoint_writer import Checkpointer
from gristmill.trainer.config import PretrainConfig, TrainingConfig
from gristmill.trainer.config_lora import LoraConfig
from gristmill.trainer.config_model import ModelConfig
from gristmill.trainer.grid import Grid
from gristmill.trainer.hugging_face_error import HuggingFaceError
from gristmill.trainer.lora import add_lora, initialize_lora
from gristmill.trainer.model import Transformer, initialize, resolve
from gristmill.trainer.optimizer import make_optimizer
from gristmill.trainer.start import load_start, load_trained

SMALL = ModelConfig(
    num_layers=2, hidden_size=32, num_heads=4, num_kv_heads=2, ffn_size=64, init_std=0.2
)
GPT2 = ModelConfig(
    num_layers=1, hidden_size=32, num_heads=4, norm="layer", positions="learned",
    activation="gelu", biases=True, max_positions=32,
)  # fmt: skip
VOCAB_SIZE = 90


def save(folder: Path, model: Transformer, lora: LoraConfig, init_from: str = "") -> Path:
    """Write a checkpoint of a model as a training would."""
    config = PretrainConfig(
        model=model.config,
        lora=lora,
        training=TrainingConfig(init_from=init_from, precision="float32"),
    )
    facts = Facts(
        step=1,
        consumed_samples=1,
        config=config,
        vocab_size=VOCAB_SIZE,
        data={"eod_id": 0, "datasets": {}},
        skipped_steps=0,
        guard={},
        layout={"tensor": 1, "data": 1, "expert": 1, "shard": 1},
    )
    optimizer = make_optimizer(model, config.optimizer, Grid())
    checkpointer = Checkpointer(folder, model, optimizer, Grid())
    checkpointer.save(facts, None, 0)
    checkpointer.wait()
    return locate(folder)


@torch.no_grad()
def tuned(folder: Path, config: ModelConfig, lora: LoraConfig) -> tuple[Path, Path]:
    """Write a base and low-rank matrices that are not zero; return both checkpoints."""
    base = Transformer(resolve(config), VOCAB_SIZE)
    initialize(base, 1)
    start = save(folder / "base", base, LoraConfig())
    model = Transformer(resolve(config), VOCAB_SIZE)
    add_lora(model, lora)
    load_start(model, start)
    initialize_lora(model, 2)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_b"):
            parameter.normal_(0, 0.3, generator=generator)
    return start, save(folder / "tuned", model, lora, str(start))


def logits(folder: Path) -> torch.Tensor:
    facts = read_facts(folder)
    model = Transformer(facts.config.model, VOCAB_SIZE)
    load_trained(model, folder, facts)
    with torch.no_grad():
        return model(TOKENS)[..., :VOCAB_SIZE]


TOKENS = torch.randint(0, VOCAB_SIZE, (2, 15), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("config", [SMALL, GPT2], ids=["llama", "gpt2"])
def test_a_merged_export_has_the_logits_of_the_tuned_model(
    tmp_path: Path, config: ModelConfig
) -> None:
    transformers = pytest.importorskip("transformers")
    targets = ("query", "value", "output", "up")
    _, folder = tuned(tmp_path, config, LoraConfig(rank=3, targets=targets))

    export_model(folder, tmp_path / "export")

    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "export")
    with torch.no_grad():
        torch.testing.assert_close(theirs(TOKENS).logits, logits(folder), rtol=1e-4, atol=1e-4)


def test_peft_reads_the_matrices_alone_and_has_the_same_logits(tmp_path: Path) -> None:
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    start, folder = tuned(tmp_path, SMALL, LoraConfig(rank=3, alpha=5.0))

    export_model(start, tmp_path / "base-export")
    export_adapter(folder, tmp_path / "adapter")

    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base-export")
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (3, 5.0)
    with torch.no_grad():
        torch.testing.assert_close(theirs(TOKENS).logits, logits(folder), rtol=1e-4, atol=1e-4)
        change = (logits(start) - logits(folder)).abs().max()
    assert change > 0.1


def test_what_peft_has_no_place_for_is_refused_and_merging_named(tmp_path: Path) -> None:
    start, folder = tuned(tmp_path, GPT2, LoraConfig(rank=3, targets=("query", "value")))

    with pytest.raises(HuggingFaceError, match="without --adapter"):
        export_adapter(folder, tmp_path / "adapter")
    with pytest.raises(HuggingFaceError, match="no low-rank matrices"):
        export_adapter(start, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_targets_that_a_model_does_not_have_are_refused() -> None:
    with pytest.raises(ValueError, match="names gate, which this model does not have"):
        add_lora(Transformer(resolve(GPT2), VOCAB_SIZE), LoraConfig(rank=2))
