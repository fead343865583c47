"""The model's mathematics: equal to transformers' Llama, to itself with a cache, at any width."""

from __future__ import annotations

import math

import pytest
import torch

from gristmill.trainer.config_model import ModelConfig
from gristmill.trainer.model import (
    Transformer,
    count_parameters,
    initialize,
    pad_vocabulary,
    resolve,
)
from gristmill.trainer.sampler import Sampler
from gristmill.trainer.sampling import continue_rows

CONFIG = resolve(
    ModelConfig(num_layers=2, hidden_size=32, num_heads=4, num_kv_heads=2, init_std=0.1)
)
VOCAB_SIZE = 250


def make(config: ModelConfig = CONFIG, dtype: torch.dtype = torch.float64) -> Transformer:
    model = Transformer(config, VOCAB_SIZE, compute_dtype=dtype)
    initialize(model, seed=1)
    return model


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, VOCAB_SIZE, shape, generator=torch.Generator().manual_seed(2))


def hugging_face_name(name: str) -> str:
    whole = {
        "embedding.weight": "model.embed_tokens.weight",
        "norm.weight": "model.norm.weight",
        "head.weight": "lm_head.weight",
    }
    if name in whole:
        return whole[name]
    _, number, *rest = name.split(".")
    parts = {
        "attention_norm": "input_layernorm",
        "feed_forward_norm": "post_attention_layernorm",
        "attention.query": "self_attn.q_proj",
        "attention.key": "self_attn.k_proj",
        "attention.value": "self_attn.v_proj",
        "attention.output": "self_attn.o_proj",
        "feed_forward.gate": "mlp.gate_proj",
        "feed_forward.up": "mlp.up_proj",
        "feed_forward.down": "mlp.down_proj",
    }
    return f"model.layers.{number}.{parts['.'.join(rest[:-1])]}.weight"


@pytest.mark.parametrize("tied", [True, False])
def test_logits_equal_those_of_transformers_llama(tied: bool) -> None:
    transformers = pytest.importorskip("transformers", reason="the oracle is not installed")
    config = resolve(
        ModelConfig(
            num_layers=2,
            hidden_size=32,
            num_heads=4,
            num_kv_heads=2,
            init_std=0.1,
            tied_embeddings=tied,
            rope_theta=500.0,
        )
    )
    model = make(config, torch.float32)
    oracle = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=VOCAB_SIZE,
            hidden_size=config.hidden_size,
            intermediate_size=config.ffn_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            rms_norm_eps=config.norm_epsilon,
            tie_word_embeddings=tied,
            rope_theta=config.rope_theta,
        )
    )
    weights = oracle.state_dict()
    for name, parameter in model.named_parameters():
        target = weights[hugging_face_name(name)]
        target.copy_(parameter.detach()[: target.shape[0]])
    ids = tokens(2, 40)

    with torch.no_grad():
        found, expected = model(ids)[..., :VOCAB_SIZE], oracle(ids).logits

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_padded_columns_never_win_and_get_no_gradient() -> None:
    model = make()
    ids = tokens(2, 9)
    logits = model(ids)

    assert logits.shape[-1] == pad_vocabulary(VOCAB_SIZE, 64) == 256
    assert torch.isneginf(logits[..., VOCAB_SIZE:]).all()
    model.loss(ids, ids, torch.ones(2, 9, dtype=torch.bool)).backward()  # type: ignore[no-untyped-call]
    gradient = model.embedding.weight.grad
    assert gradient is not None
    assert torch.isfinite(gradient).all()
    assert (gradient[VOCAB_SIZE:] == 0).all()


def test_the_loss_does_not_depend_on_the_padding() -> None:
    ids, mask = tokens(2, 9), torch.ones(2, 9, dtype=torch.bool)
    losses = []
    for multiple in (1, 64):
        config = resolve(
            ModelConfig(num_layers=1, hidden_size=32, num_heads=4, vocab_multiple=multiple)
        )
        model = make(config)
        with torch.no_grad():  # the padded matrix is another draw: give both the same real rows
            generator = torch.Generator().manual_seed(0)
            rows = torch.randn(VOCAB_SIZE, 32, generator=generator, dtype=torch.float64)
            model.embedding.weight[:VOCAB_SIZE] = rows
        losses.append(model.loss(ids, ids, mask))

    torch.testing.assert_close(losses[0], losses[1], rtol=1e-12, atol=0)


def test_the_loss_of_a_new_model_is_that_of_guessing() -> None:
    config = resolve(ModelConfig(num_layers=4, hidden_size=128, num_heads=4))
    model = Transformer(config, 5000)
    initialize(model, seed=0)
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(0, 5000, (4, 65), generator=generator)
    mask = torch.ones(4, 64, dtype=torch.bool)

    loss = model.token_nll(ids[:, :-1], ids[:, 1:], mask).mean()

    assert loss.item() == pytest.approx(math.log(5000), abs=0.1)


def test_initial_weights_depend_on_the_name_and_the_seed_alone() -> None:
    small, large = make(), make(resolve(ModelConfig(num_layers=3, hidden_size=32, num_heads=4,
                                                    num_kv_heads=2, init_std=0.1)))  # fmt: skip
    query = "blocks.0.attention.query.weight"
    other = Transformer(CONFIG, VOCAB_SIZE, compute_dtype=torch.float64)
    initialize(other, seed=2)

    assert torch.equal(small.get_parameter(query), large.get_parameter(query))
    assert not torch.equal(small.get_parameter(query), other.get_parameter(query))
    key = "blocks.1.attention.key.weight"
    assert not torch.equal(
        small.get_parameter(key), small.get_parameter(key.replace("key", "value"))
    )


def test_a_position_sees_nothing_after_it() -> None:
    model, ids = make(), tokens(1, 12)
    changed = ids.clone()
    changed[0, 8:] = (changed[0, 8:] + 1) % VOCAB_SIZE

    with torch.no_grad():
        one, other = model(ids), model(changed)

    assert torch.equal(one[:, :8], other[:, :8])
    assert not torch.equal(one[:, 8], other[:, 8])


@pytest.mark.parametrize("cuts", [[5, 6, 7, 8, 9, 10, 11, 12], [1, 12], [7, 12]])
def test_decoding_with_a_cache_equals_the_full_forward(cuts: list[int]) -> None:
    model, ids = make(), tokens(3, 12)
    cache, start, parts = model.make_cache(3, 12), 0, []

    with torch.no_grad():
        for end in cuts:
            parts.append(model(ids[:, start:end], cache, start))
            start = end
        full = model(ids)

    torch.testing.assert_close(torch.cat(parts, dim=1), full, rtol=1e-10, atol=1e-10)


def test_a_model_that_was_evaluated_first_can_be_trained() -> None:
    model = make()

    with torch.inference_mode():
        model(tokens(1, 8))
    model(tokens(1, 8))[..., :VOCAB_SIZE].sum().backward()

    assert all(parameter.grad is not None for parameter in model.parameters())


def test_greedy_generation_equals_the_argmax_of_full_forwards() -> None:
    model, ids = make(), tokens(1, 5)[0].tolist()
    (new,) = continue_rows(model, [ids], 10, Sampler(temperature=0))

    expected = list(ids)
    for _ in range(10):
        with torch.no_grad():
            expected.append(int(model(torch.tensor([expected]))[0, -1].argmax()))

    assert new == expected[5:]


def test_generation_ends_at_the_end_of_the_document() -> None:
    model, ids = make(), tokens(1, 5)[0].tolist()
    (free,) = continue_rows(model, [ids], 10, Sampler(temperature=0))

    (stopped,) = continue_rows(model, [ids], 10, Sampler(temperature=0), stop_ids=[free[3]])

    assert stopped == free[: free.index(free[3])]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_number_formats_stay_what_they_are(dtype: torch.dtype) -> None:
    model, ids = make(dtype=dtype), tokens(2, 9)
    mask = torch.ones(2, 9, dtype=torch.bool)
    loss = model.loss(ids, ids, mask)
    loss.backward()  # type: ignore[no-untyped-call]

    assert model(ids).dtype == dtype
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert loss.dtype == model.token_nll(ids, ids, mask).dtype == wide
    for name, parameter in model.named_parameters():
        assert parameter.dtype == wide, name
        assert parameter.grad is not None
        assert parameter.grad.dtype == wide, name


def test_bfloat16_is_near_float32() -> None:
    ids = tokens(2, 30)
    with torch.no_grad():
        half, full = make(dtype=torch.bfloat16)(ids), make(dtype=torch.float32)(ids)

    difference = (half.float() - full)[..., :VOCAB_SIZE].abs().max()
    assert 0 < difference < 0.05 * full[..., :VOCAB_SIZE].abs().max()


@pytest.mark.parametrize("tied", [True, False])
def test_the_count_of_parameters_is_the_model_s(tied: bool) -> None:
    config = resolve(
        ModelConfig(num_layers=3, hidden_size=48, num_heads=6, num_kv_heads=2, tied_embeddings=tied)
    )

    numbers = [p.numel() for p in Transformer(config, VOCAB_SIZE).parameters()]

    assert sum(numbers) == count_parameters(config, VOCAB_SIZE)
