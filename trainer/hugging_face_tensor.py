"""How a tensor of a Hugging Face folder and our parameters are made of each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class FileTensor:
    """How one tensor of a file is made."""

    parts: tuple[str, ...]
    """Our parameters, joined along the outputs in this order."""
    transposed: bool = False
    """Whether the file has [inputs, outputs]."""
    expert: int | None = None
    """The file has this expert's part of ours, which holds all experts one after the other."""

    def shape(self, ours: list[torch.Size]) -> tuple[int, ...]:
        """Return the shape of the file's tensor, of our whole parameters' shapes."""
        if self.expert is not None:
            return tuple(ours[0][1:])
        whole = (sum(shape[0] for shape in ours), *ours[0][1:])
        return whole[::-1] if self.transposed else whole

    def join(self, ours: list[torch.Tensor]) -> torch.Tensor:
        """Return the file's tensor, of our whole parameters."""
        if self.expert is not None:
            return ours[0][self.expert]
        whole = torch.cat(ours) if len(ours) > 1 else ours[0]
        return whole.t().contiguous() if self.transposed else whole

    def split(self, theirs: torch.Tensor) -> list[torch.Tensor]:
        """Return our whole parameters, of the file's tensor."""
        whole = theirs.t() if self.transposed else theirs
        return list(whole.chunk(len(self.parts)))
