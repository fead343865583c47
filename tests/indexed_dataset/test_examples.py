"""The examples run as they are printed in the documentation."""

import importlib
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from gristmill.indexed_dataset import (
    IndexedDataset,
    MegatronOptions,
    build_megatron_blend,
    temperature_weights,
)

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def folder(write_prefix, random_documents, tmp_path):
    for number, name in enumerate(("train/deu_Latn", "train/eng_Latn")):
        documents = [document % 500 for document in random_documents(60, seed=number)]
        write_prefix(documents, name, vocab_size=500)
    return tmp_path / "train"


def run(name, *arguments):
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr
    return result.stdout.splitlines()


def test_plain_numpy_goes_on_where_it_was(folder):
    whole = run("plain_numpy.py", folder, "--sequence-length", 16, "--steps", 4)
    rest = run(
        *("plain_numpy.py", folder, "--sequence-length", 16),
        *("--steps", 2, "--consumed-samples", 8),
    )

    assert whole[0].startswith("blend of 2:")
    assert rest[-2:] == whole[-2:]
    assert whole[-1].startswith("16 samples: tokens (4, 16) of ")


@pytest.mark.slow
def test_plain_torch_sees_the_same_data_with_forked_and_spawned_workers(folder):
    pytest.importorskip("torch", reason="torch is not installed (extra `trainer`)")
    options = ("plain_torch.py", folder, "--sequence-length", 16, "--steps", 3)
    alone = run(*options)

    assert len(alone) == 3
    assert run(*options, "--workers", 2, "--start-method", "fork") == alone
    resumed = run(
        *(*options, "--workers", 2, "--start-method", "spawn", "--consumed-samples", 4),
    )
    batches = [[line.split("of sum ")[1] for line in lines] for lines in (alone, resumed)]
    assert batches[1][:2] == batches[0][1:]


@pytest.mark.slow
def test_the_hugging_face_trainer_learns_from_our_samples(write_prefix, tmp_path):
    pytest.importorskip("accelerate", reason="accelerate is not installed (extra `test`)")
    pytest.importorskip("transformers", reason="transformers is not installed (extra `test`)")
    counting = [(np.arange(40) + start) % 20 for start in range(60)]  # easily learnt
    write_prefix(counting, "train/eng_Latn", vocab_size=500)
    options = ("--sequence-length", "16", "--steps", "12", "--output", str(tmp_path / "out"))
    folder = str(tmp_path / "train")
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / "huggingface_trainer.py"), folder, *options],
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if line.startswith("step")]
    losses = [float(line.split()[-1]) for line in lines]
    assert len(losses) == 12
    assert losses[-1] < losses[0] - 1
    assert (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.slow
def test_megatron_core_draws_the_samples_of_our_megatron_order_from_our_files(folder, tmp_path):
    """51 + 50 samples: Megatron rounds the shares of 100, 50.1 and 49.9, up."""
    pytest.importorskip("megatron.core", reason="megatron-core is not installed (extra `test`)")
    options = ("--sequence-length", "16", "--cache", str(tmp_path / "cache"))
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / "megatron_core.py"), str(folder), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    datasets = [IndexedDataset(folder / name) for name in ("deu_Latn", "eng_Latn")]
    weights = temperature_weights([dataset.num_tokens for dataset in datasets], alpha=0.7)
    ours = build_megatron_blend(
        datasets,
        16,
        weights=weights,
        num_samples=100,
        options=MegatronOptions(split="1", part="train"),
    )

    assert result.returncode == 0, result.stderr
    assert len(ours) == 101
    assert result.stdout.splitlines() == [
        "Megatron reads 101 samples from 2 prefixes (100 were asked for)",
        *(
            f"sample {i}: dataset {ours[i]['dataset_id']}, 16 tokens of sum "
            f"{ours[i]['tokens'].sum()}"
            for i in range(3)
        ),
    ]


@pytest.mark.slow
def test_the_data_module_gives_litgpt_tokens_and_the_label_after_them(folder, monkeypatch):
    torch = pytest.importorskip("torch", reason="torch is not installed (extra `trainer`)")
    try:
        importlib.import_module("litgpt.data")
    except ImportError:  # it pins an older huggingface_hub than ours: a stand-in of its base class
        module = types.ModuleType("litgpt.data")
        module.DataModule = object
        monkeypatch.setitem(sys.modules, "litgpt", types.ModuleType("litgpt"))
        monkeypatch.setitem(sys.modules, "litgpt.data", module)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    data_module = importlib.import_module("litgpt_data_module").Gristmill(folder.parent)
    data_module.connect(batch_size=4, max_seq_length=16)
    whole = list(data_module.train_dataloader())
    data_module.consumed_samples = 8
    rest = list(data_module.train_dataloader())

    assert {batch.shape for batch in whole} == {(4, 17)}
    assert len(rest) == len(whole) - 2
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], rest, strict=True))
