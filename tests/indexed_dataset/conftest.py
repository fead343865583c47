"""Small datasets to read, and the shape of random ones."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from gristmill.indexed_dataset import IndexedDatasetBuilder

WritePrefix = Callable[..., Path]


@pytest.fixture
def write_prefix(tmp_path: Path) -> WritePrefix:
    """Return a function that writes documents (lists of ids, EOD included) and gives the prefix."""

    def write(
        documents: Sequence[Any],
        name: str = "data",
        *,
        vocab_size: int = 60_000,
        eod_id: int | None = 0,
        **fields: Any,
    ) -> Path:
        with IndexedDatasetBuilder(
            tmp_path / name, vocab_size=vocab_size, overwrite=True
        ) as builder:
            for document in documents:
                builder.add_document(document)
            builder.finalize(**{"eod_id": eod_id, "document_order": "shuffled", **fields})
        return tmp_path / name

    return write


@pytest.fixture
def random_documents() -> Callable[..., list[np.ndarray]]:
    """Return a function that draws documents of 1 to `longest` ids, each ended by the EOD 0."""

    def draw(num_documents: int, longest: int = 40, seed: int = 0) -> list[np.ndarray]:
        random = np.random.default_rng(seed)
        return [
            np.append(random.integers(1, 60_000, size=random.integers(0, longest)), 0)
            for _ in range(num_documents)
        ]

    return draw


@pytest.fixture(scope="session")
def oracle() -> ModuleType:
    """`megatron_oracle.py`: the real classes of megatron-core on corpora in memory."""
    path = Path(__file__).with_name("megatron_oracle.py")
    spec = importlib.util.spec_from_file_location("megatron_oracle", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
