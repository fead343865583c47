"""Loss, gradients and steps do not depend on the layout of ranks: float64, to 1e-10."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from gristmill.trainer.config import ParallelConfig
from gristmill.trainer.config_model import ModelConfig
from gristmill.trainer.grid import Grid, check_data_ranks
from gristmill.trainer.model import resolve
from gristmill.trainer.parallel import check_experts, check_layout, check_sequence

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

ENCODERS = ("bert", "modernbert")
DENSE = ("gqa_tied", "untied", "one_kv_head", "two_kv_heads", "gpt2", "qwen3", *ENCODERS)
MIXTURES = ("experts", "experts_loss")
LAYOUTS: dict[int, dict[str, tuple[str, ...]]] = {
    # ranks -> layout -> models; the words of a layout stand in parallel_program.layout
    2: {
        "tp2": (*DENSE, *MIXTURES),
        "tp2-sp": ("gqa_tied", "one_kv_head", "gpt2", "qwen3", *ENCODERS, "experts_loss"),
        "tp1": ("untied", "experts_loss"),
        "tp1-full": ("gqa_tied", "gpt2", *ENCODERS, "experts"),
        "tp1-ep2": MIXTURES,
    },
    4: {
        "tp4-sp": ("one_kv_head", "two_kv_heads", "experts"),
        "tp2-sp-full": ("qwen3", "experts_loss"),
        "tp2-ep2": ("experts",),
        "tp1-ep2-full": ("experts_loss",),
        "tp1-hybrid2": ("untied",),
    },
}
ALL = {
    2: ("tp2", "tp2-sp", "tp1", "tp1-full", "tp1-ep2", "tp1-ep2-full"),
    4: (
        *("tp4", "tp4-sp", "tp2", "tp2-sp", "tp2-full", "tp2-sp-full", "tp2-ep2", "tp2-sp-ep2"),
        *("tp2-ep2-full", "tp2-sp-ep2-full", "tp1", "tp1-full", "tp1-hybrid2", "tp1-ep2"),
        *("tp1-ep2-full", "tp1-ep4-full", "tp1-ep2-hybrid2"),
    ),
}
CHAIN = ("tp4", "tp1-ep2-full", "tp2-sp", "tp1-hybrid2", "tp2-ep2-full", "tp1-ep4", "tp1")
MUON: dict[int, dict[str, tuple[str, ...]]] = {
    2: {
        "tp2-muon": ("one_kv_head", "experts"),
        "tp1-muon": ("untied",),
        "tp1-full-muon": ("gpt2", "experts"),
        "tp1-ep2-muon": ("experts_loss",),
    },
    4: {
        "tp2-sp-full-muon": ("qwen3", "experts_loss"),
        "tp2-ep2-muon": ("experts",),
        "tp1-ep2-full-muon": ("experts",),
        "tp1-hybrid2-muon": ("two_kv_heads",),
    },
}
NARROW = {2: {"tp2-sp-float32": ("qwen3", "experts"), "tp1-full-bfloat16": ("gpt2", "experts")}}


@pytest.fixture(scope="module")
def alone(program: ModuleType) -> dict[str, Any]:
    return {name: program.compute(name, Grid(), 4) for name in (*DENSE, *MIXTURES)}


@pytest.fixture(scope="module")
def alone_by_muon(program: ModuleType) -> dict[str, Any]:
    return {
        name: program.compute(name, Grid(), 4, kind="muon")
        for name in sorted({model for _, model in cases(MUON)})
    }


Results = Callable[..., dict[str, list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def results_of(
    run_ranks: Callable[..., None], tmp_path_factory: pytest.TempPathFactory, program: ModuleType
) -> Results:
    """Return a function that runs layouts, and returns the results of each rank by layout."""

    def run(
        layouts: dict[int, dict[str, tuple[str, ...]]], chain: bool = False
    ) -> dict[str, list[dict[str, Any]]]:
        results = {}
        for size, cases in layouts.items():
            folder = tmp_path_factory.mktemp(f"ranks{size}")
            words = [f"{layout}:{','.join(models)}" for layout, models in cases.items()]
            if chain and size == 4:  # with the others: ranks take long to start
                results["chain"] = [program.resume("experts", Grid(), folder / "chain", 0)]
                words += [f"{name}:resume{step}" for step, name in enumerate(CHAIN, start=1)]
            run_ranks(Path(program.__file__ or ""), size, folder, *words)
            for layout in cases:
                files = [folder / f"{layout}-rank{rank}.pt" for rank in range(size)]
                results[f"{layout} on {size}"] = [torch.load(file) for file in files]
            if chain and size == 4:
                last = program.resume("experts", Grid(), folder / "chain", len(CHAIN) + 1)
                for layout in CHAIN:
                    files = [folder / "chain" / f"{layout}-rank{rank}.pt" for rank in range(size)]
                    results[f"chain {layout}"] = [torch.load(file) for file in files]
                results["chain"].append(last)
        return results

    return run


@pytest.fixture(scope="module")
def few(results_of: Results) -> dict[str, list[dict[str, Any]]]:
    both = {size: LAYOUTS[size] | MUON[size] for size in LAYOUTS}
    return results_of(both, chain=True)


def cases(layouts: dict[int, dict[str, tuple[str, ...]]]) -> list[tuple[str, str]]:
    return [
        (f"{layout} on {size}", model)
        for size, by_layout in layouts.items()
        for layout, models in by_layout.items()
        for model in models
    ]


def assert_equal(result: dict[str, Any], expected: dict[str, Any], what: str, **close: Any) -> None:
    """Compare what a rank holds with the same place of the whole."""
    assert result[what].keys() == expected[what].keys()
    for name, (start, part) in result[what].items():
        whole = expected[what][name][1]
        place = tuple(slice(a, a + n) for a, n in zip(start, part.shape, strict=True))
        torch.testing.assert_close(
            part, whole[place], **close, msg=lambda text, name=name: f"{name}: {text}"
        )


def compare(results: list[dict[str, Any]], model: str, expected: dict[str, Any]) -> None:
    """Compare everything that each rank has with one process."""
    exact, close = {"rtol": 0.0, "atol": 0.0}, {"rtol": 1e-10, "atol": 1e-10}
    for rank in results:
        result = rank[model]
        assert_equal(result, expected, "initial", **exact)
        for what in ("loss", "norm"):
            assert result[what] == pytest.approx(expected[what], rel=1e-10, abs=1e-10)
        assert result["tokens"] == expected["tokens"]
        assert_equal(result, expected, "gradients", **close)
        assert_equal(result, expected, "weights", **close)
        if expected["routing"] is not None:
            torch.testing.assert_close(result["routing"], expected["routing"], **close)


@pytest.mark.parametrize(("layout", "model"), cases(LAYOUTS))
def test_loss_norm_gradients_and_two_steps_equal_one_process(
    layout: str, model: str, few: Any, alone: Any
) -> None:
    """Initial weights too, bit for bit; and each rank's part is where it says."""
    compare(few[layout], model, alone[model])


@pytest.mark.parametrize(("layout", "model"), cases(MUON))
def test_muon_orthogonalizes_the_whole_matrices_in_every_layout(
    layout: str, model: str, few: Any, alone_by_muon: Any, alone: Any
) -> None:
    compare(few[layout], model, alone_by_muon[model])
    differs = [
        name
        for name, (_, weight) in alone_by_muon[model]["weights"].items()
        if not torch.equal(weight, alone[model]["weights"][name][1])
    ]
    assert any(name.endswith("attention.query.weight") for name in differs)


@pytest.mark.deep
@pytest.mark.parametrize(
    ("size", "layout"), [(n, name) for n, names in ALL.items() for name in names]
)
def test_in_every_layout_every_model_equals_one_process(
    size: int, layout: str, results_of: Results, alone: Any, program: ModuleType
) -> None:
    models = MIXTURES if "ep" in layout else (*DENSE, *MIXTURES)

    results, by_muon = results_of({size: {layout: models, f"{layout}-muon": models}}).values()

    for model in models:
        compare(results, model, alone[model])
        compare(by_muon, model, program.compute(model, Grid(), 4, kind="muon"))


def test_every_step_of_a_training_may_have_another_layout(
    few: Any, program: ModuleType, tmp_path: Path
) -> None:
    """Each layout loads what the one before has saved: weights, moments and router biases."""
    alone = [program.resume("experts", Grid(), tmp_path, step) for step in range(len(CHAIN) + 2)]
    last = few["chain"][-1]

    close = {"rtol": 1e-8, "atol": 1e-8}
    for layout, expected in zip(CHAIN, alone[1:-1], strict=True):
        for rank in few[f"chain {layout}"]:
            assert rank["loss"] == pytest.approx(expected["loss"], rel=1e-8)
            assert_equal(rank, expected, "state", **close)
    assert last["loss"] == pytest.approx(alone[-1]["loss"], rel=1e-8)
    assert_equal(last, alone[-1], "state", **close)
    biases = [value for name, (_, value) in last["state"].items() if name.endswith("router.bias")]
    assert len(biases) == 2
    assert all(bias.abs().max() > 0 for bias in biases)


def test_whole_parameters_stay_the_same_bits_on_every_rank(few: Any) -> None:
    for layout, results in few.items():
        for model in set() if "chain" in layout else results[0].keys() - {"losses"}:
            for name, (_, value) in results[0][model]["weights"].items():
                if name.endswith(("norm.weight", "norm.bias", "output.bias", "router.weight")):
                    for rank in results:
                        assert torch.equal(value, rank[model]["weights"][name][1]), name


def test_narrow_number_formats_differ_by_rounding_only(
    results_of: Results, program: ModuleType
) -> None:
    found = results_of(NARROW)
    for (layout, model), (close, steps) in zip(
        cases(NARROW), [(1e-5, 1e-5), (1e-5, 1e-5), (2e-2, 2e-2), (2e-2, 2e-2)], strict=True
    ):
        dtype = layout.split()[0].split("-")[-1]
        expected = program.compute(model, Grid(), 4, dtype)
        for rank in found[layout]:
            result = rank[model]
            assert result["loss"] == pytest.approx(expected["loss"], rel=steps)
            assert result["norm"] == pytest.approx(expected["norm"], rel=steps)
            for name, (_, part) in result["gradients"].items():
                assert part.dtype == torch.float32, name
            assert_equal(result, expected, "gradients", rtol=close, atol=close)


@pytest.mark.parametrize("case", ["ordinary", "extreme", "all_masked", "foreign_labels"])
def test_sharded_cross_entropy_equals_pytorchs(case: str, few: Any) -> None:
    for layout in ("tp2 on 2", "tp4-sp on 4", "tp1 on 2"):
        for rank in few[layout]:
            found = rank["losses"][case]
            logits = found["logits"].requires_grad_()
            labels = found["labels"].masked_fill(~found["mask"], -1)
            nll = F.cross_entropy(logits, labels, ignore_index=-1, reduction="none")
            (gradient,) = torch.autograd.grad(3 * nll.sum(), logits)
            close = {"rtol": 1e-10, "atol": 1e-10}
            torch.testing.assert_close(found["nll"], nll.detach(), **close)
            torch.testing.assert_close(found["total"], nll.detach().sum(), **close)
            torch.testing.assert_close(found["gradient"], gradient, **close)
            assert torch.isfinite(found["nll"]).all()
            if case == "all_masked":
                assert found["nll"].abs().sum() == 0
                assert found["gradient"].abs().sum() == 0


@pytest.mark.parametrize("model", ["untied", "experts", "experts_loss"])
@pytest.mark.parametrize("micro_batch_size", [1, 8])
def test_accumulation_does_not_change_a_step(
    micro_batch_size: int, model: str, alone: Any, program: ModuleType
) -> None:
    found = program.compute(model, Grid(), micro_batch_size)

    compare([{model: found}], model, alone[model])


@pytest.mark.parametrize(
    ("change", "ranks", "words"),
    [
        ({"num_heads": 6, "hidden_size": 96}, 4, "model.num_heads = 6"),
        ({"ffn_size": 66}, 4, "model.ffn_size = 66"),
        ({"num_heads": 6, "hidden_size": 96, "num_kv_heads": 3}, 2, "num_kv_heads = 3"),
        ({"num_experts": 4, "expert_ffn_size": 66}, 4, "model.expert_ffn_size = 66"),
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


def test_a_sequence_that_ranks_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match="a sequence of 30 tokens cannot be divided") as error:
        check_sequence(30, 4)

    assert "sequence_parallel = false" in str(error.value)


@pytest.mark.parametrize(
    ("experts", "ranks", "words"),
    [(6, 4, "does not divide model.num_experts = 6.*one of 1, 2, 3, 6"), (0, 2, "no experts")],
)
def test_experts_that_ranks_cannot_share_are_refused(experts: int, ranks: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_experts(ModelConfig(num_experts=experts), ranks)


@pytest.mark.parametrize(
    ("parallel", "words"),
    [
        (ParallelConfig(expert_parallel_size=4), "expert_parallel_size = 4 does not.*one of 1, 2"),
        (ParallelConfig(shard="hybrid", shard_size=5), "shard_size = 5 does not divide the 6"),
        (ParallelConfig(shard="hybrid"), "Set both or neither"),
        (ParallelConfig(shard="full", shard_size=2), 'shard = "full" and parallel.shard_size = 2'),
    ],
)
def test_groups_that_do_not_divide_the_data_parallel_ranks_are_refused(
    parallel: ParallelConfig, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        check_data_ranks(parallel, 6)
