"""BERT and ModernBERT of transformers are read and written: the same logits on both sides."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gristmill.trainer import export_model
from gristmill.trainer.config_model import ModelConfig
from gristmill.trainer.hugging_face_config import family, from_hugging_face
from gristmill.trainer.hugging_face_error import HuggingFaceError
from gristmill.trainer.hugging_face_import import imported_model, load_hugging_face
from gristmill.trainer.model import Transformer, resolve
from gristmill.trainer.places import document_places
from gristmill.trainer.presets import apply_preset

transformers = pytest.importorskip("transformers", reason="the oracle is not installed")

VOCAB_SIZE = 250
FAMILIES: dict[str, Any] = {
    "bert": lambda: transformers.BertConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=40,
        initializer_range=0.2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    ),
    "modernbert": lambda: transformers.ModernBertConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
        local_attention=8,
        initializer_range=0.2,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        cls_token_id=0,
        sep_token_id=0,
        attn_implementation="sdpa",
    ),
}


@pytest.fixture(params=FAMILIES)
def theirs(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Path]:
    """Return a random encoder of each family in float64, and its folder."""
    torch.manual_seed(4)
    model = transformers.AutoModelForMaskedLM.from_config(FAMILIES[request.param]()).double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "theirs")
    return model.eval(), tmp_path / "theirs"


def ours(folder: Path) -> Transformer:
    model = Transformer(
        imported_model(folder, ModelConfig()), VOCAB_SIZE, compute_dtype=torch.float64
    )
    load_hugging_face(model, folder)
    return model


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, VOCAB_SIZE, shape, generator=torch.Generator().manual_seed(2))


def test_an_imported_encoder_gives_the_logits_of_transformers(theirs: tuple[Any, Path]) -> None:
    oracle, folder = theirs
    ids = tokens(2, 30)
    with torch.no_grad():
        found, expected = ours(folder)(ids)[..., :VOCAB_SIZE], oracle(ids).logits

    torch.testing.assert_close(found, expected, atol=2e-6, rtol=2e-6)


def test_padding_is_not_seen_by_an_imported_encoder(theirs: tuple[Any, Path]) -> None:
    oracle, folder = theirs
    ids = tokens(2, 20)
    bounds = torch.full((2, 21), 20, dtype=torch.int32)
    bounds[:, 0] = 0
    bounds[1, 1] = 12
    places = document_places(bounds, torch.device("cpu"), torch.float64, causal=False)
    attention_mask = torch.arange(20) < torch.tensor([[20], [12]])
    with torch.no_grad():
        found = ours(folder)(ids, places=places)[..., :VOCAB_SIZE]
        expected = oracle(ids, attention_mask=attention_mask.long()).logits

    torch.testing.assert_close(found[0], expected[0], atol=2e-6, rtol=2e-6)
    torch.testing.assert_close(found[1, :12], expected[1, :12], atol=2e-6, rtol=2e-6)


def test_the_gradients_of_the_masked_loss_are_those_of_transformers(
    theirs: tuple[Any, Path],
) -> None:
    oracle, folder = theirs
    model, ids = ours(folder), tokens(2, 30)
    mask = torch.rand(2, 30, generator=torch.Generator().manual_seed(1)) < 0.3
    rows = mask.flatten().nonzero()[:, 0]
    loss = model.loss(ids.flip(1), ids, mask, rows_N=rows)
    loss.backward()
    labels = ids.masked_fill(~mask, -100)
    expected = oracle(ids.flip(1), labels=labels).loss * mask.sum()
    expected.backward()
    embedding = oracle.get_input_embeddings().weight.grad
    bias = dict(oracle.named_parameters())[
        "cls.predictions.bias" if oracle.config.model_type == "bert" else "decoder.bias"
    ].grad

    torch.testing.assert_close(loss, expected.double(), atol=1e-5, rtol=1e-5)
    assert model.embedding.weight.grad is not None
    own = model.embedding.weight.grad[:VOCAB_SIZE]
    # transformers gives the padding id no gradient as an input.
    torch.testing.assert_close(own[1:], embedding[1:], atol=1e-4, rtol=1e-4)
    assert model.masked_head is not None
    torch.testing.assert_close(model.masked_head.bias.grad[:VOCAB_SIZE], bias, atol=1e-6, rtol=1e-5)


def test_files_with_the_older_names_of_norms_are_read(theirs: tuple[Any, Path]) -> None:
    from safetensors.torch import load_file, save_file

    oracle, folder = theirs
    if oracle.config.model_type != "bert":
        pytest.skip("only BERT's files are so old")
    tensors = load_file(folder / "model.safetensors")
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in tensors.items()
    }
    renamed["bert.pooler.dense.weight"] = torch.zeros(32, 32)
    renamed["cls.seq_relationship.bias"] = torch.zeros(2)
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    ids = tokens(1, 9)
    with torch.no_grad():
        torch.testing.assert_close(
            ours(folder)(ids)[..., :VOCAB_SIZE], oracle(ids).logits, atol=2e-6, rtol=2e-6
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer_types": ["full_attention"] * 3 + ["sliding_attention"]}, "layer_types"),
        ({"hidden_activation": "relu"}, "hidden_activation = 'relu'"),
        ({"norm_bias": True}, "norm_bias = True"),
    ],
)
def test_an_encoder_that_is_not_computed_here_is_refused_by_name(
    change: dict[str, Any], message: str
) -> None:
    values = {**FAMILIES["modernbert"]().to_dict(), **change}
    with pytest.raises(HuggingFaceError, match=message):
        from_hugging_face(values, "folder")


@pytest.mark.parametrize("preset", ["bert-base", "modernbert-base"])
def test_an_encoder_without_counterpart_is_refused_before_it_is_exported(preset: str) -> None:
    config = resolve(apply_preset(ModelConfig(preset=preset)))

    assert family(config) == preset.removesuffix("-base")
    with pytest.raises(HuggingFaceError, match=r"model\.tied_embeddings = False has no counter"):
        family(dataclasses.replace(config, tied_embeddings=False))


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_an_exported_encoder_gives_its_logits_in_transformers_and_fills_in_masks(
    name: str, encoder_run: Any, tmp_path: Path
) -> None:
    from gristmill.trainer.sampling import load_model

    run = encoder_run(name)
    folder = export_model(run, tmp_path / "exported")
    oracle = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = load_model(run).model
    ids = tokenizer("the mill [MASK] the grain", return_tensors="pt").input_ids
    with torch.no_grad():
        found, expected = model(ids)[..., : model.vocab_size], oracle(ids).logits

    assert (
        type(oracle).__name__ == {"bert": "Bert", "modernbert": "ModernBert"}[name] + "ForMaskedLM"
    )
    assert (ids == tokenizer.mask_token_id).sum() == 1
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)
    assert "fill-mask" in (folder / "README.md").read_text(encoding="utf-8")
    again = imported_model(folder, ModelConfig())
    assert json.loads((folder / "config.json").read_bytes())["vocab_size"] == model.vocab_size
    assert again.causal is False
    # Of rotary positions the folder names the longest context that was trained on.
    assert again.max_positions == 32
    assert dataclasses.replace(again, max_positions=model.config.max_positions) == model.config
