"""Ranks to run programs on, and small datasets with a tokenizer beside them."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the trainer's tests need torch")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def run_ranks() -> Callable[..., None]:
    """Return a function that runs a script in `size` processes connected by gloo."""

    def run(script: Path, size: int, *arguments: object) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = os.environ | {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "GLOO_SOCKET_IFNAME": "lo",
            "WORLD_SIZE": str(size),
            "LOCAL_WORLD_SIZE": str(size),
            "OMP_NUM_THREADS": "1",
        }
        words = [sys.executable, str(script), *map(str, arguments)]
        ranks = [
            subprocess.Popen(
                words,
                env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(size)
        ]
        errors = [rank.communicate(timeout=600)[1] for rank in ranks]
        assert all(rank.returncode == 0 for rank in ranks), "\n".join(errors)[-4000:]

    return run


@pytest.fixture(scope="session")
def program() -> ModuleType:
    """The program that ranks of the parallel tests run, as a module."""
    script = Path(__file__).with_name("parallel_program.py")
    spec = importlib.util.spec_from_file_location("parallel_program", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WriteData = Callable[..., Path]

TEXTS = {
    "eng_Latn": "the mill grinds the grain and the miller sings a song of wind and water ",
    "ell_Grek": "ο μύλος αλέθει το σιτάρι και ο μυλωνάς τραγουδά για τον άνεμο ",
    "hin_Deva": "चक्की अनाज पीसती है और चक्कीवाला हवा और पानी का गीत गाता है ",
}


@pytest.fixture(scope="session")
def write_data() -> WriteData:
    """Return a function that writes a data folder: bytes as tokens, id 0 ends a document."""
    from gristmill.indexed_dataset import IndexedDatasetBuilder

    def write(
        folder: Path,
        *,
        num_documents: int = 12,
        texts: dict[str, str] = TEXTS,
        fingerprint: str = "",
        validation: bool = True,
        manifest: bool = True,
    ) -> Path:
        vocabulary, fingerprint = _write_tokenizer(folder / "tokenizer", fingerprint)
        splits = ("train", "validation") if validation else ("train",)
        for split in splits:
            for group, text in texts.items():
                prefix = folder / split / group
                builder = IndexedDatasetBuilder(prefix, vocab_size=len(vocabulary) + 1)
                chance = np.random.default_rng(len(split) + len(group) + len(text))
                text_bytes = 0
                for _ in range(num_documents if split == "train" else 3):
                    words = text.split()
                    chance.shuffle(words)
                    data = " ".join(words).encode()
                    text_bytes += len(data)
                    builder.add_document([vocabulary[byte] for byte in data] + [0])
                builder.finalize(
                    text_bytes=text_bytes,
                    eod_id=0,
                    tokenizer={"path": "../tokenizer", "fingerprint": fingerprint},
                    document_order="shuffled",
                    split=split,
                    group=group,
                )
                if not manifest:
                    prefix.with_suffix(".json").unlink()
        return folder

    return write


def _write_tokenizer(folder: Path, fingerprint: str) -> tuple[dict[int, int], str]:
    """Write a tokenizer of single bytes; return byte -> id and the fingerprint."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = {"<|end|>": 0} | {letter: number for number, letter in enumerate(alphabet, start=1)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[]))
    tokenizer.add_special_tokens(["<|end|>"])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    token_bytes = np.ones(len(ids), dtype=np.int32)
    token_bytes[0] = 0
    np.save(folder / "token_bytes.npy", token_bytes)
    vocabulary = {byte: ids[_letter(byte)] for byte in range(256)}
    return vocabulary, fingerprint or hashlib.blake2b(str(ids).encode()).hexdigest()[:32]


def _letter(byte: int) -> str:
    """Return the letter that stands for a byte in byte-level tokenizers (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    if byte in printable:
        return chr(byte)
    return chr(256 + [b for b in range(256) if b not in printable].index(byte))


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory, write_data: WriteData) -> Path:
    """A data folder with three groups in three scripts, for tests that only read it."""
    return write_data(tmp_path_factory.mktemp("data") / "data")


ENCODERS: dict[str, dict[str, Any]] = {
    "bert": {
        "norm": "layer",
        "norm_position": "after",
        "embedding_norm": True,
        "token_types": 2,
        "positions": "learned",
        "activation": "gelu_exact",
        "biases": True,
    },
    "modernbert": {
        "norm": "layer_without_bias",
        "embedding_norm": True,
        "activation": "geglu",
        "local_window": 8,
        "rope_theta": 1000.0,
    },
}


@pytest.fixture(scope="session")
def encoder_run(
    data_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Return a function that trains a tiny encoder (or "decoder"), once, and returns its run."""
    from gristmill.trainer import PretrainConfig, pretrain
    from gristmill.trainer.config import (
        CheckpointConfig,
        DataConfig,
        LogConfig,
        OptimizerConfig,
        ScheduleConfig,
        TrainingConfig,
    )
    from gristmill.trainer.config_model import ModelConfig

    made: dict[str, Path] = {}

    def run(kind: str) -> Path:
        if kind not in made:
            sizes = {"num_layers": 4, "hidden_size": 32, "num_heads": 4, "ffn_size": 64}
            config = PretrainConfig(
                model=ModelConfig(**sizes, causal=kind == "decoder", **ENCODERS.get(kind, {})),
                data=DataConfig(path=str(data_folder), sequence_length=32),
                optimizer=OptimizerConfig(learning_rate=1e-2),
                schedule=ScheduleConfig(warmup_steps=2),
                training=TrainingConfig(
                    num_steps=6, global_batch_size=8, device="cpu", precision="float32"
                ),
                checkpoint=CheckpointConfig(every_steps=3, keep_last=0),
                log=LogConfig(tensorboard=False),
            )
            made[kind] = tmp_path_factory.mktemp(kind)
            pretrain(config, output=made[kind])
        return made[kind]

    return run


@pytest.fixture(scope="session")
def encoder_settings() -> dict[str, dict[str, Any]]:
    """The fields of `ModelConfig` that make an encoder of each kind, but for `causal`."""
    return ENCODERS
