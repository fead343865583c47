"""The examples run as they are printed in the documentation."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

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
