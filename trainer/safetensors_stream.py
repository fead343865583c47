"""Tensors in, one after the other, a safetensors file out: memory holds one tensor.

The `safetensors` library writes a file from all its tensors at once. The format is a header that
says where each tensor will lie, then their bytes (https://github.com/huggingface/safetensors,
"Format"): 8 bytes little-endian length of the header, the header as JSON, the tensors in the order
of the header, without gaps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import torch

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
}
_ALIGNMENT = 8


class StreamedSafetensors:
    """A safetensors file that is being written.

    Args:
        path: of the file.
        tensors: name -> (shape, dtype), in the order in which they will come.
    """

    def __init__(
        self, path: Path, tensors: Mapping[str, tuple[tuple[int, ...], torch.dtype]]
    ) -> None:
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name, (shape, dtype) in tensors.items():
            start, end = end, end + math.prod(shape) * dtype.itemsize
            header[name] = {
                "dtype": _NAMES[dtype],
                "shape": list(shape),
                "data_offsets": [start, end],
            }
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % _ALIGNMENT)
        self._expected = iter(tensors.items())
        self._file = path.open("wb")
        self._file.write(len(text).to_bytes(8, "little") + text)

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Append the next tensor."""
        expected, (shape, dtype) = next(self._expected)
        found = (name, tuple(tensor.shape), tensor.dtype)
        assert found == (expected, shape, dtype), (found, expected, shape, dtype)
        raw = tensor.contiguous().view(-1).view(torch.uint8)
        self._file.write(raw.numpy().data)

    def __enter__(self) -> StreamedSafetensors:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        assert error is not None or next(self._expected, None) is None
