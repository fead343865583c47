"""Folders of transformers are read and written: the same logits, steps and texts on both sides."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from gristmill.trainer import PretrainConfig, export_model, pretrain
from gristmill.trainer.checkpoint_state import weights_of
from gristmill.trainer.config import (
    DataConfig,
    EvaluateConfig,
    GenerateConfig,
    OptimizerConfig,
    ParallelConfig,
    ScheduleConfig,
    TrainingConfig,
)
from gristmill.trainer.config_model import ModelConfig, RopeScalingConfig
from gristmill.trainer.data import Batch
from gristmill.trainer.grid import Grid, Ranks
from gristmill.trainer.guard import Guard
from gristmill.trainer.hugging_face_config import family, from_hugging_face
from gristmill.trainer.hugging_face_error import HuggingFaceError
from gristmill.trainer.hugging_face_import import imported_model, load_hugging_face
from gristmill.trainer.model import Transformer, placements, resolve
from gristmill.trainer.optimizer import make_optimizer
from gristmill.trainer.sampling import generate, load_model
from gristmill.trainer.step import start_step

transformers = pytest.importorskip("transformers", reason="the oracle is not installed")

VOCAB_SIZE = 250
_LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "rope_theta": 500.0,
}
FAMILIES: dict[str, Any] = {
    "llama": lambda: transformers.LlamaConfig(
        vocab_size=VOCAB_SIZE, tie_word_embeddings=False, **_LLAMA
    ),
    "llama_tied_biases": lambda: transformers.LlamaConfig(
        vocab_size=VOCAB_SIZE,
        tie_word_embeddings=True,
        attention_bias=True,
        mlp_bias=True,
        **_LLAMA,
    ),
    "llama3": lambda: transformers.LlamaConfig(
        vocab_size=VOCAB_SIZE,
        max_position_embeddings=256,
        **{key: value for key, value in _LLAMA.items() if key != "rope_theta"},
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ),
    "qwen3": lambda: transformers.Qwen3Config(
        vocab_size=VOCAB_SIZE, tie_word_embeddings=True, head_dim=12, **_LLAMA
    ),
    "mixtral": lambda: transformers.MixtralConfig(
        vocab_size=VOCAB_SIZE, num_local_experts=4, num_experts_per_tok=2, **_LLAMA
    ),
    "qwen3_moe": lambda: transformers.Qwen3MoeConfig(
        vocab_size=VOCAB_SIZE,
        num_experts=6,
        num_experts_per_tok=3,
        moe_intermediate_size=24,
        norm_topk_prob=False,
        head_dim=12,
        **_LLAMA,
    ),
    "dots1": lambda: transformers.Dots1Config(
        vocab_size=VOCAB_SIZE,
        n_routed_experts=4,
        n_shared_experts=2,
        num_experts_per_tok=2,
        moe_intermediate_size=24,
        norm_topk_prob=True,
        first_k_dense_replace=0,
        sliding_window=None,
        head_dim=12,
        **_LLAMA,
    ),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=VOCAB_SIZE,
        n_embd=32,
        n_head=4,
        n_layer=2,
        n_positions=40,
        initializer_range=0.2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    ),
}


@pytest.fixture(params=FAMILIES)
def theirs(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Path]:
    """Return a random model of each family in float64, biases and norms too, and its folder."""
    torch.manual_seed(4)
    settings = FAMILIES[request.param]()
    settings._experts_implementation = "eager"  # the one that computes in float64
    model = transformers.AutoModelForCausalLM.from_config(settings).double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.1 * torch.randn_like(parameter)
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer += 0.1 * torch.randn_like(buffer)
    model.save_pretrained(tmp_path / "theirs")
    return model.eval(), tmp_path / "theirs"


def ours(folder: Path) -> Transformer:
    # Whose loss has no term but the tokens', as transformers' without output_router_logits.
    config = imported_model(folder, ModelConfig(balance="none"))
    model = Transformer(config, VOCAB_SIZE, compute_dtype=torch.float64)
    load_hugging_face(model, folder)
    return model


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, VOCAB_SIZE, shape, generator=torch.Generator().manual_seed(2))


def test_an_imported_model_gives_the_logits_of_transformers(theirs: tuple[Any, Path]) -> None:
    oracle, folder = theirs
    ids = tokens(2, 30)

    with torch.no_grad():
        found, expected = ours(folder)(ids)[..., :VOCAB_SIZE], oracle(ids).logits

    # transformers computes rotary angles and norms in float32 whatever the model's format.
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


def test_ranks_import_their_slices(theirs: tuple[Any, Path]) -> None:
    whole = weights_of(ours(theirs[1]))
    experts = imported_model(theirs[1], ModelConfig()).num_experts
    for rank in range(2):
        for expert in (Ranks(), Ranks(1 - rank, 2)) if experts else (Ranks(),):
            config = imported_model(theirs[1], ModelConfig())
            model = Transformer(config, VOCAB_SIZE, Ranks(rank, 2), torch.float64, expert=expert)
            load_hugging_face(model, theirs[1])
            where = placements(model)
            for name, held in weights_of(model).items():
                assert torch.equal(held, where[name].slice(whole[name])), name


def test_a_step_after_the_import_is_the_step_of_transformers(theirs: tuple[Any, Path]) -> None:
    oracle, folder = theirs
    model = ours(folder)
    ids = tokens(4, 25)
    mask = torch.rand(4, 24, generator=torch.Generator().manual_seed(6)) < 0.8
    settings = OptimizerConfig(clip_norm=0.5)
    start_step(
        model,
        make_optimizer(model, settings, Grid()),
        Batch(ids[:, :-1], ids[:, 1:], mask, int(mask.sum())),
        Grid(),
        Guard(settings, torch.device("cpu")),
        micro_batch_size=2,
        learning_rate=1e-2,
        clip_norm=settings.clip_norm,
    )
    logits = oracle(ids[:, :-1]).logits
    F.cross_entropy(logits[mask], ids[:, 1:][mask]).backward()
    torch.nn.utils.clip_grad_norm_(oracle.parameters(), settings.clip_norm)
    groups = [
        {"params": [p for p in oracle.parameters() if p.dim() > 1], "weight_decay": 0.1},
        {"params": [p for p in oracle.parameters() if p.dim() == 1], "weight_decay": 0.0},
    ]
    torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95)).step()

    with torch.no_grad():
        found, expected = model(ids)[..., :VOCAB_SIZE], oracle(ids).logits
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert (found - ours(folder)(ids)[..., :VOCAB_SIZE]).abs().max() > 0.1


def training(data: Path, model: ModelConfig, **changes: Any) -> PretrainConfig:
    settings = TrainingConfig(
        num_steps=2, global_batch_size=4, micro_batch_size=4, device="cpu", **changes
    )
    return PretrainConfig(
        model=model,
        data=DataConfig(path=str(data), sequence_length=32),
        optimizer=OptimizerConfig(learning_rate=1e-2),
        schedule=ScheduleConfig(warmup_steps=1),
        training=settings,
        parallel=ParallelConfig(threads_per_rank=1),
        evaluate=EvaluateConfig(unigram_baseline=False),
        generate=GenerateConfig(max_tokens=0),
    )


SMALL = ModelConfig(num_layers=2, hidden_size=32, num_heads=4, ffn_size=64, init_std=0.2)
MODELS = {
    "llama": dataclasses.replace(SMALL, num_kv_heads=2, tied_embeddings=False),
    "qwen3": dataclasses.replace(SMALL, num_kv_heads=2, head_size=12, query_key_norm=True),
    "llama_yarn": dataclasses.replace(
        SMALL, rope_scaling=RopeScalingConfig(kind="yarn", factor=4.0, original_positions=8)
    ),
    "mixtral": dataclasses.replace(SMALL, num_experts=4, balance="loss", tied_embeddings=False),
    "qwen3_moe": dataclasses.replace(
        SMALL, num_experts=4, balance="loss", query_key_norm=True, expert_ffn_size=32
    ),
    "dots1": dataclasses.replace(
        SMALL,
        num_experts=4,
        num_shared_experts=1,
        router_score="sigmoid",
        query_key_norm=True,
        balance_bias_rate=0.05,
    ),
    "gpt2": dataclasses.replace(
        SMALL, norm="layer", positions="learned", activation="gelu", biases=True, max_positions=64
    ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("max_file_bytes", [20_000, 10**9])
def test_an_exported_model_says_the_same_in_transformers(
    name: str, max_file_bytes: int, data_folder: Path, tmp_path: Path
) -> None:
    pretrain(training(data_folder, MODELS[name]), output=tmp_path / "run")
    folder = export_model(tmp_path / "run", tmp_path / "out", max_file_bytes=max_file_bytes)

    oracle = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    mine = load_model(tmp_path / "run")
    ids = torch.tensor([tokenizer.encode("the mill grinds")])
    with torch.no_grad():
        found = mine.model(ids)[..., : mine.model.vocab_size]
        expected = oracle(ids).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert oracle.config.model_type == name.removesuffix("_yarn")
    sharded = (folder / "model.safetensors.index.json").exists()
    assert sharded == (max_file_bytes == 20_000)

    prompt = torch.tensor([[mine.eod_id, *ids[0].tolist()]])
    continued = oracle.generate(prompt, max_new_tokens=12, do_sample=False)
    text = tokenizer.decode(continued[0, prompt.shape[1] :], skip_special_tokens=True)
    greedy = generate(mine, ["the mill grinds"], max_tokens=12, temperature=0)
    assert greedy == [text]
    assert tokenizer.eos_token_id == mine.eod_id
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert all(group in card for group in ("eng_Latn", "ell_Grek", "hin_Deva"))
    assert "bits per byte" in card


def test_training_goes_on_from_an_exported_model(data_folder: Path, tmp_path: Path) -> None:
    first = training(data_folder, MODELS["qwen3"])
    pretrain(first, output=tmp_path / "first")
    export_model(tmp_path / "first", tmp_path / "exported")
    second = training(data_folder, ModelConfig(), init_from=str(tmp_path / "exported"))

    pretrain(dataclasses.replace(second, optimizer=OptimizerConfig(learning_rate=1e-30)),
             output=tmp_path / "second")  # fmt: skip

    before, after = (load_model(tmp_path / name).model for name in ("first", "second"))
    for name, parameter in before.named_parameters():
        real = slice(0, before.vocab_size) if name == "embedding.weight" else slice(None)
        torch.testing.assert_close(after.get_parameter(name)[real], parameter[real], msg=name)


def test_a_training_may_stretch_the_context_of_what_it_starts_from(tmp_path: Path) -> None:
    folder = save_llama(tmp_path / "hub")
    longer = RopeScalingConfig(kind="yarn", factor=4.0, original_positions=2048)

    found = imported_model(folder, ModelConfig(rope_scaling=longer, max_positions=8192))

    assert (found.rope_scaling, found.max_positions) == (longer, 8192)
    assert imported_model(folder, ModelConfig()).rope_scaling == RopeScalingConfig()
    assert found.rope_theta == 500.0


def test_an_export_never_overwrites(data_folder: Path, tmp_path: Path) -> None:
    pretrain(training(data_folder, SMALL), output=tmp_path / "run")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")

    with pytest.raises(HuggingFaceError, match="is taken, and nothing was written"):
        export_model(tmp_path / "run", tmp_path / "out")

    assert [path.name for path in tmp_path.iterdir()].count("out") == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_routers_with_a_bias_that_no_family_has_are_not_exported(
    data_folder: Path, tmp_path: Path
) -> None:
    pretrain(
        training(data_folder, dataclasses.replace(SMALL, num_experts=4)), output=tmp_path / "run"
    )

    with pytest.raises(HuggingFaceError, match=r'Train with model\.balance = "loss"'):
        export_model(tmp_path / "run", tmp_path / "out")

    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_model_without_counterpart_is_trained_but_not_exported() -> None:
    odd = dataclasses.replace(SMALL, norm="layer")

    with pytest.raises(HuggingFaceError, match=r"model\.positions = 'rotary' has no counterpart"):
        family(resolve(odd))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "mamba"}, "family 'mamba'; gristmill reads llama, qwen3, gpt2, mixtral"),
        ({"rope_scaling": {"type": "dynamic", "factor": 8.0}}, "rotary positions by 'dynamic'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "lacks original_positions"),
        ({"hidden_act": "relu"}, "hidden_act = 'relu'"),
        ({"attention_bias": True}, "mlp_bias = False"),
        ({"use_sliding_window": True}, "use_sliding_window = True"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(change: dict[str, Any], words: str) -> None:
    values = {
        "model_type": "llama",
        "vocab_size": 100,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "mlp_bias": False,
    }
    from_hugging_face(values, "folder")

    with pytest.raises(HuggingFaceError, match=words):
        from_hugging_face(values | change, "folder")


def save_llama(folder: Path) -> Path:
    model = transformers.AutoModelForCausalLM.from_config(FAMILIES["llama"]())
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("damage", ["cut", "missing", "without_tensor", "other_shape", "no_json"])
def test_a_damaged_folder_is_named(damage: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_llama(tmp_path / "hub")
    weights, settings = folder / "model.safetensors", folder / "config.json"
    words = {
        "cut": "no whole safetensors file",
        "missing": "is missing",
        "without_tensor": "no tensor model.norm.weight",
        "other_shape": "has the shape",
        "no_json": "is not JSON",
    }[damage]
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "missing":
        weights.unlink()
    elif damage == "no_json":
        settings.write_text("{")
    else:
        tensors = load_file(weights)
        if damage == "without_tensor":
            del tensors["model.norm.weight"]
        else:
            tensors["model.norm.weight"] = torch.ones(7)
        save_file(tensors, weights, {"format": "pt"})

    with pytest.raises(HuggingFaceError, match=words) as error:
        ours(folder)

    assert str(folder) in str(error.value)


def test_tensors_of_another_network_are_not_ignored(tmp_path: Path) -> None:
    folder = save_llama(tmp_path / "hub")
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"num_hidden_layers": 1}))

    with pytest.raises(HuggingFaceError, match=r"no place: model\.layers\.1\."):
        ours(folder)


def test_settings_that_contradict_the_folder_are_refused(tmp_path: Path) -> None:
    folder = save_llama(tmp_path / "hub")

    with pytest.raises(HuggingFaceError, match=r"model\.num_layers = 3 \(there 2\)"):
        imported_model(folder, ModelConfig(num_layers=3, hidden_size=32))


@pytest.mark.parametrize(
    ("vocab_size", "words"), [(20, "the model in .* 20"), (257, "is not the tokenizer")]
)
def test_data_of_another_tokenizer_is_refused(
    vocab_size: int, words: str, data_folder: Path, tmp_path: Path
) -> None:
    config = transformers.LlamaConfig(vocab_size=vocab_size, tie_word_embeddings=False, **_LLAMA)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "hub")
    tokenizer = json.loads((data_folder / "tokenizer" / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["zz"] = 999
    (tmp_path / "hub" / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = training(data_folder, ModelConfig(), init_from=str(tmp_path / "hub"))

    with pytest.raises(HuggingFaceError, match=words):
        pretrain(config, output=tmp_path / "run")
