"""Positions in, the angles by which queries and keys turn out; stretched for longer contexts.

Dimensions i and i + E/2 of a head of width E turn together by position * theta^(-2i/E) (Su et al.
2021, arXiv:2104.09864, in the half-split order of the Llama files on the hub). What was trained on
positions up to `original_positions` reads longer texts when slow pairs turn more slowly still:

    linear  every frequency / factor (Chen et al. 2023, arXiv:2306.15595)
    llama3  slow pairs / factor, fast ones as they are, those between in proportion (Llama 3.1)
    yarn    the same with a ramp over the pairs; queries and keys are also scaled (Peng et al. 2023,
            arXiv:2309.00071)

The numbers are those of `transformers`, in float64.
"""

from __future__ import annotations

import math

import torch

from .config_model import ModelConfig, RopeScalingConfig


def rotary_frequencies(config: ModelConfig) -> tuple[torch.Tensor, float]:
    """Return each pair's angle a position, float64[head_size / 2], and what scales cos and sin.

    Args:
        config: resolved.

    Example: theta 10,000 and head_size 4 give [1, 0.01] and 1.0.
    """
    width, scaling = config.head_size, config.rope_scaling
    pairs = torch.arange(0, width, 2, dtype=torch.float64)
    frequencies = config.rope_theta ** (-pairs / width)
    if scaling.kind == "linear":
        return frequencies / scaling.factor, 1.0
    if scaling.kind == "llama3":
        return _llama3(frequencies, scaling), 1.0
    if scaling.kind == "yarn":
        return _yarn(frequencies, scaling, config.rope_theta), _yarn_magnitude(scaling)
    return frequencies, 1.0


def rotary_angles(
    config: ModelConfig, start: int, length: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cos and sin, float64[length, head_size], of positions start .. start+length-1."""
    frequencies, magnitude = rotary_frequencies(config)
    positions = torch.arange(start, start + length, dtype=torch.float64, device=device)
    angles = torch.outer(positions, frequencies.to(device))
    angles = torch.cat([angles, angles], dim=1)
    return angles.cos() * magnitude, angles.sin() * magnitude


def rotate(x_BHTE: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn each head's vectors by their positions' angles.

    Args:
        cos, sin: [T, E], or [B, 1, T, E] where rows have positions of their own.
    """
    first, second = x_BHTE.chunk(2, dim=3)
    return x_BHTE * cos + torch.cat([-second, first], dim=3) * sin


def _llama3(frequencies: torch.Tensor, scaling: RopeScalingConfig) -> torch.Tensor:
    """Weigh by the turns that a pair makes within the original context."""
    turns = frequencies * scaling.original_positions / (2 * math.pi)
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return kept * frequencies + (1 - kept) * frequencies / scaling.factor


def _yarn(frequencies: torch.Tensor, scaling: RopeScalingConfig, theta: float) -> torch.Tensor:
    """Keep pairs below the one with beta_fast turns, stretch those above the one with beta_slow."""
    width = 2 * len(frequencies)

    def pair_with(turns: float) -> float:
        ratio = scaling.original_positions / (turns * 2 * math.pi)
        return width * math.log(ratio) / (2 * math.log(theta))

    first, last = pair_with(scaling.beta_fast), pair_with(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, width - 1)
    if first == last:
        last += 0.001  # as transformers: a step instead of a ramp
    ramp = (torch.arange(len(frequencies), dtype=torch.float64) - first) / (last - first)
    stretched = ramp.clamp(0, 1)
    return stretched * frequencies / scaling.factor + (1 - stretched) * frequencies


def _yarn_magnitude(scaling: RopeScalingConfig) -> float:
    if scaling.attention_factor:
        return scaling.attention_factor

    def magnitude(weight: float) -> float:
        return 1.0 if scaling.factor <= 1 else 0.1 * weight * math.log(scaling.factor) + 1.0

    if scaling.mscale and scaling.mscale_all_dim:
        return magnitude(scaling.mscale) / magnitude(scaling.mscale_all_dim)
    return magnitude(1.0)
