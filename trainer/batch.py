"""Samples in, one rank's tensors of a step out: masked first, where an encoder is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..indexed_dataset import Masking, TokenRangeError


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's samples of one step. Legend: B samples, T positions."""

    tokens_BT: torch.Tensor
    """int64 ids."""
    labels_BT: torch.Tensor
    """int64, the token after each."""
    mask_BT: torch.Tensor
    """bool, which labels count."""
    num_valid: int
    """Labels that count."""
    bounds_BN: torch.Tensor | None = None
    """int32[B, T + 1] on the CPU: bounds of the documents of each row, filled up with T; None:
    attention crosses them."""
    rows_N: torch.Tensor | None = None
    """int64, the true places of the mask, where these are so few that the output layer is spared
    the others; None: it sees all tokens."""

    def micro_batches(self, size: int, device: torch.device) -> Iterator[Batch]:
        """Yield at most `size` samples at a time, on `device`."""
        parts = [torch.split(part, size) for part in (self.tokens_BT, self.labels_BT, self.mask_BT)]
        bounds_BN = self.bounds_BN
        for number, (tokens, labels, mask) in enumerate(zip(*parts, strict=True)):
            yield Batch(
                tokens.to(device, non_blocking=True),
                labels.to(device, non_blocking=True),
                mask.to(device, non_blocking=True),
                int(mask.sum()),
                None if bounds_BN is None else bounds_BN[number * size : (number + 1) * size],
                _few_rows(mask, device),
            )


def _few_rows(mask_BT: torch.Tensor, device: torch.device) -> torch.Tensor | None:
    """Return the true places, if they are less than half; no GPU is waited for."""
    if 2 * int(mask_BT.sum()) >= mask_BT.numel():
        return None
    return mask_BT.flatten().nonzero()[:, 0].to(device, non_blocking=True)


def check_ids(ids: NDArray[np.integer[Any]], vocab_size: int, where: str) -> None:
    """Refuse ids that the model has no row for.

    Raises:
        TokenRangeError: names one of them.
    """
    if ids.size == 0:
        return
    lowest, highest = int(ids.min()), int(ids.max())
    if lowest < 0 or highest >= vocab_size:
        raise TokenRangeError(
            f"{where}: the id {lowest if lowest < 0 else highest} is beyond the vocabulary of "
            f"{vocab_size} ids. The data were made with another tokenizer, or data.vocab_size is "
            "too small"
        )


def read_batch(
    samples: list[Any],
    vocab_size: int,
    where: str,
    *,
    pinned: bool = False,
    masking: Masking | None = None,
    numbers: Sequence[int] = (),
) -> Batch:
    """Stack samples, and make sure that the model knows every id in them.

    Args:
        masking: masks them; None: the labels are the tokens after each.
        numbers: of the samples, which their masks depend on.

    Raises:
        TokenRangeError: an id outside of the vocabulary.
    """
    tokens: NDArray[np.int64] = np.stack([sample["tokens"] for sample in samples])
    labels: NDArray[np.int64] = np.stack([sample["labels"] for sample in samples])
    mask = np.stack([sample["loss_mask"] for sample in samples]) > 0
    check_ids(tokens, vocab_size, where)
    check_ids(labels, vocab_size, where)
    if masking is not None:
        labels = tokens
        tokens, mask = masking(tokens, mask, numbers)
    tensors = [torch.from_numpy(array) for array in (tokens, labels, mask)]
    if pinned:
        tensors = [tensor.pin_memory() for tensor in tensors]
    bounds_BN = None
    if "cu_seqlens" in samples[0]:
        bounds_BN = torch.from_numpy(np.stack([sample["cu_seqlens"] for sample in samples]))
    return Batch(tensors[0], tensors[1], tensors[2], int(mask.sum()), bounds_BN)
