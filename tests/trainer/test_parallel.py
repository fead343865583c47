"""Loss, gradients and steps do not depend on the layout of ranks: float64, to 1e-10."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from gristmill.trainer.config_model import ModelConfig
from gristmill.trainer.grid import Grid, Ranks
from gristmill.trainer.model import resolve
from gristmill.trainer.parallel import check_layout, placement

SCRIPT = Path(__file__).with_name("parallel_program.py")
LAYOUTS = {"tp2": (2, 2), "dp2": (2, 1), "tp4": (4, 4), "tp2dp2": (4, 2)}
"""Name -> (all ranks, tensor-parallel ranks)."""
MODELS = ["gqa_tied", "untied", "one_kv_head", "two_kv_heads", "gpt2", "qwen3"]


@pytest.fixture(scope="module")
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("parallel_program", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def alone(program: ModuleType) -> dict[str, Any]:
    return {name: program.compute(name, Grid()) for name in MODELS}


@pytest.fixture(scope="module")
def finished(
    run_ranks: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> dict[int, Path]:
    """Number of ranks -> folder with the results of all layouts of so many ranks."""
    folders = {}
    for size in sorted({size for size, _ in LAYOUTS.values()}):
        folders[size] = tmp_path_factory.mktemp(f"ranks{size}")
        tensors = [tensor for all_ranks, tensor in LAYOUTS.values() if all_ranks == size]
        run_ranks(SCRIPT, size, folders[size], *tensors)
    return folders


@pytest.fixture(scope="module", params=LAYOUTS)
def ranks(
    request: pytest.FixtureRequest, finished: dict[int, Path]
) -> tuple[int, list[dict[str, Any]]]:
    """Tensor parallel size, and the results of each rank."""
    size, tensor = LAYOUTS[request.param]
    names = [f"layout{tensor}-rank{rank}.pt" for rank in range(size)]
    return tensor, [torch.load(finished[size] / name) for name in names]


def slice_of(full: torch.Tensor, name: str, model: str, program: ModuleType, where: Ranks) -> Any:
    return placement(name, resolve(program.MODELS[model][0]), where).slice(full)


@pytest.mark.parametrize("model", MODELS)
def test_initial_weights_are_slices_of_one_process_bit_for_bit(
    model: str, ranks: Any, alone: Any, program: ModuleType
) -> None:
    tensor, results = ranks
    for rank, result in enumerate(results):
        where = Ranks(rank % tensor, tensor)
        for name, full in alone[model]["initial"].items():
            expected = slice_of(full, name, model, program, where)
            assert torch.equal(result[model]["initial"][name], expected), name


@pytest.mark.parametrize("model", MODELS)
def test_loss_and_norm_equal_one_process(model: str, ranks: Any, alone: Any) -> None:
    for result in ranks[1]:
        assert result[model]["loss"] == pytest.approx(alone[model]["loss"], rel=1e-10, abs=1e-10)
        assert result[model]["norm"] == pytest.approx(alone[model]["norm"], rel=1e-10, abs=1e-10)
        assert result[model]["tokens"] == alone[model]["tokens"]


@pytest.mark.parametrize("what", ["gradients", "weights"])
@pytest.mark.parametrize("model", MODELS)
def test_every_gradient_and_every_weight_after_two_steps_equal_one_process(
    model: str, what: str, ranks: Any, alone: Any, program: ModuleType
) -> None:
    tensor, results = ranks
    for rank, result in enumerate(results):
        where = Ranks(rank % tensor, tensor)
        for name, full in alone[model][what].items():
            expected = slice_of(full, name, model, program, where)
            torch.testing.assert_close(
                result[model][what][name], expected, rtol=1e-10, atol=1e-10, msg=name
            )


def test_whole_parameters_stay_the_same_bits_on_every_rank(ranks: Any) -> None:
    tensor, results = ranks
    for rank, result in enumerate(results):
        twin = results[rank - rank % tensor]
        for model in MODELS:
            for name, value in result[model]["weights"].items():
                if name.endswith(("norm.weight", "norm.bias", "output.bias", "down.bias")):
                    assert torch.equal(value, twin[model]["weights"][name]), name


@pytest.mark.parametrize("case", ["ordinary", "extreme", "all_masked", "foreign_labels"])
def test_sharded_cross_entropy_equals_pytorchs(case: str, ranks: Any, program: ModuleType) -> None:
    tensor, results = ranks
    expected = program.losses(Ranks())[case]
    for rank, result in enumerate(results):
        found = result["losses"][case]
        place = rank % tensor
        columns = slice(place * 64 // tensor, (place + 1) * 64 // tensor)
        torch.testing.assert_close(found["nll"], expected["nll"], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(
            found["gradient"], expected["gradient"][:, columns], rtol=1e-10, atol=1e-10
        )
        assert torch.isfinite(found["nll"]).all()


def test_all_masked_tokens_give_zero_loss_and_gradient(program: ModuleType) -> None:
    found = program.losses(Ranks())["all_masked"]

    assert found["nll"].abs().sum() == 0
    assert found["gradient"].abs().sum() == 0


@pytest.mark.parametrize("micro_batch_size", [1, 8])
def test_accumulation_does_not_change_a_step(
    micro_batch_size: int, alone: Any, program: ModuleType
) -> None:
    found = program.compute("untied", Grid(), micro_batch_size)

    assert found["loss"] == pytest.approx(alone["untied"]["loss"], rel=1e-12)
    for name, value in alone["untied"]["weights"].items():
        torch.testing.assert_close(found["weights"][name], value, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("change", "ranks", "words"),
    [
        ({"num_heads": 6, "hidden_size": 96}, 4, "model.num_heads = 6"),
        ({"ffn_size": 66}, 4, "model.ffn_size = 66"),
        ({"num_heads": 6, "hidden_size": 96, "num_kv_heads": 3}, 2, "num_kv_heads = 3"),
    ],
)
def test_a_layout_that_does_not_divide_the_model_is_refused(
    change: dict[str, int], ranks: int, words: str
) -> None:
    config = resolve(ModelConfig(**({"hidden_size": 32, "num_heads": 4} | change)))

    with pytest.raises(ValueError, match=words) as error:
        check_layout(config, 256, ranks)

    assert f"tensor_parallel_size = {ranks}" in str(error.value)


def test_a_vocabulary_that_ranks_cannot_share_is_refused() -> None:
    config = resolve(ModelConfig(hidden_size=48, num_heads=3, ffn_size=48))

    with pytest.raises(ValueError, match="padded vocabulary"):
        check_layout(config, 256, 3)
