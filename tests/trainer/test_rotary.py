"""Scaled rotary positions are those of transformers, and what cannot be scaled is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from gristmill.trainer.config_model import ModelConfig, RopeScalingConfig, check_model
from gristmill.trainer.model import resolve
from gristmill.trainer.rotary import rotary_angles, rotary_frequencies

SCALINGS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256},
    "yarn_deepseek": {
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 512,
        "beta_fast": 24.0,
        "beta_slow": 2.0,
        "mscale": 1.0,
        "mscale_all_dim": 0.7,
        "truncate": False,
    },
    "yarn_given": {
        "rope_type": "yarn",
        "factor": 2.0,
        "original_max_position_embeddings": 64,
        "attention_factor": 1.3,
    },
}


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
@pytest.mark.parametrize("name", SCALINGS)
def test_frequencies_are_those_of_transformers(name: str, theta: float) -> None:
    transformers = pytest.importorskip("transformers", reason="the oracle is not installed")
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    from gristmill.trainer.hugging_face_rope import read_rope_scaling

    rope = SCALINGS[name] | {"rope_theta": theta}
    oracle = LlamaRotaryEmbedding(
        transformers.LlamaConfig(
            hidden_size=128,
            num_attention_heads=2,
            rope_parameters=dict(rope),
            max_position_embeddings=4096,
        )
    )
    scaling = read_rope_scaling(rope, "folder")
    config = resolve(
        ModelConfig(hidden_size=128, num_heads=2, rope_theta=theta, rope_scaling=scaling)
    )

    frequencies, magnitude = rotary_frequencies(config)

    torch.testing.assert_close(frequencies.float(), oracle.inv_freq, rtol=2e-6, atol=0)
    assert magnitude == pytest.approx(oracle.attention_scaling, rel=1e-12)
    cos, _ = rotary_angles(config, 5, 3, torch.device("cpu"))
    expected, _ = oracle(torch.zeros(1), torch.arange(5, 8)[None])
    torch.testing.assert_close(cos.float(), expected[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"factor": 2.0}, 'its kind is "none"'),
        ({"kind": "linear", "factor": 0.5}, "must be 1 or more"),
        ({"kind": "yarn", "factor": 2.0}, "needs original_positions"),
        (
            {"kind": "llama3", "factor": 2.0, "original_positions": 8, "high_frequency_factor": 1},
            "low_frequency_factor = 1.0 must lie",
        ),
        (
            {"kind": "yarn", "factor": 2.0, "original_positions": 8, "beta_slow": 99.0},
            "beta_slow = 99.0 must lie",
        ),
    ],
)
def test_a_scaling_that_cannot_be_meant_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_model(ModelConfig(rope_scaling=RopeScalingConfig(**settings)))


def test_learned_positions_have_nothing_to_scale() -> None:
    scaled = ModelConfig(rope_scaling=RopeScalingConfig(kind="linear", factor=2.0))

    with pytest.raises(ValueError, match="there is nothing to scale"):
        check_model(dataclasses.replace(scaled, positions="learned"))
