"""Presets have the sizes of the published models, and a wrong name lists all of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from gristmill.trainer.config_model import ModelConfig, check_model
from gristmill.trainer.hugging_face_config import family
from gristmill.trainer.model import count_parameters, count_product_parameters, resolve
from gristmill.trainer.presets import PRESETS, apply_preset

PUBLISHED = {
    # parameters of the published model, its vocabulary
    "gpt2-124m": (124_439_808, 50_257),
    "gpt2-355m": (354_823_168, 50_257),
    "gpt2-774m": (774_030_080, 50_257),
    "gpt2-1.5b": (1_557_611_200, 50_257),
    "llama-1b": (1_235_814_400, 128_256),
    "llama-3b": (3_212_749_824, 128_256),
    "llama-8b": (8_030_261_248, 128_256),
    "llama-70b": (70_553_706_496, 128_256),
    "qwen3-0.6b": (596_049_920, 151_936),
    "qwen3-1.7b": (1_720_574_976, 151_936),
    "qwen3-4b": (4_022_468_096, 151_936),
    "qwen3-8b": (8_190_735_360, 151_936),
    "qwen3-14b": (14_768_307_200, 151_936),
    "qwen3-32b": (32_762_123_264, 151_936),
    "qwen3-30b-a3b": (30_532_122_624, 151_936),
    "bert-base": (109_514_298, 30_522),
    "bert-large": (335_174_458, 30_522),
    "modernbert-base": (149_655_232, 50_368),
    "modernbert-large": (395_881_664, 50_368),
    "mixtral-8x7b": (46_702_792_704, 32_000),
    "mixtral-8x22b": (140_620_634_112, 32_000),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_has_as_many_parameters_as_the_published_model(name: str) -> None:
    parameters, vocab_size = PUBLISHED[name]
    config = resolve(apply_preset(ModelConfig(preset=name, vocab_multiple=1)))

    assert count_parameters(config, vocab_size) == parameters


def test_every_preset_can_be_trained_and_exported() -> None:
    for name in PRESETS:
        config = apply_preset(ModelConfig(preset=name))
        check_model(config)
        assert family(resolve(config))
    small = resolve(apply_preset(ModelConfig(preset="llama-3m")))
    assert 2_000_000 < count_product_parameters(small, 0) < 4_000_000


def test_a_field_that_is_set_overrides_its_preset_and_the_result_stays_what_it_is() -> None:
    wanted = ModelConfig(preset="qwen3-0.6b", num_layers=4, rope_theta=1e4 + 1)

    config = apply_preset(wanted)

    assert (config.num_layers, config.hidden_size, config.rope_theta) == (4, 1024, 10_001)
    assert apply_preset(config) == config
    assert apply_preset(resolve(config)) == resolve(config)
    assert dataclasses.replace(config, preset="").query_key_norm


def test_an_unknown_preset_is_refused_with_its_neighbour_and_all_names() -> None:
    with pytest.raises(ValueError, match=r"did you mean qwen3-0\.6b\?.*mixtral-8x7b"):
        apply_preset(ModelConfig(preset="qwen3-0.6"))


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[2].glob("configs/*.toml")))
def test_every_recipe_that_is_shipped_can_be_read(path: Path) -> None:
    from gristmill.cli import parse

    arguments = parse("pretrain", [str(path)])

    check_model(apply_preset(arguments.config.model))
