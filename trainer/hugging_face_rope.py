"""A folder's rope_parameters in, our scaling of rotary positions out; and the way back.

transformers 5 keeps theta and scaling in one object, `rope_parameters`; version 4 has them in two
places, `rope_theta` and `rope_scaling`. Both are read, and both are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .config_model import ModelConfig, RopeScalingConfig
from .hugging_face_error import HuggingFaceError

_NAMES = {
    "factor": "factor",
    "original_max_position_embeddings": "original_positions",
    "low_freq_factor": "low_frequency_factor",
    "high_freq_factor": "high_frequency_factor",
    "beta_fast": "beta_fast",
    "beta_slow": "beta_slow",
    "attention_factor": "attention_factor",
    "mscale": "mscale",
    "mscale_all_dim": "mscale_all_dim",
    "truncate": "truncate",
}
"""Their name -> ours."""

_USED: dict[str, tuple[str, ...]] = {
    "linear": ("factor",),
    "llama3": (
        "factor",
        "original_max_position_embeddings",
        "low_freq_factor",
        "high_freq_factor",
    ),
    "yarn": (
        "factor",
        "original_max_position_embeddings",
        "beta_fast",
        "beta_slow",
        "attention_factor",
        "mscale",
        "mscale_all_dim",
        "truncate",
    ),
}
"""What each kind reads; the rest of an object is ignored, as transformers does."""


def read_rope_scaling(rope: Mapping[str, Any], where: str) -> RopeScalingConfig:
    """Return the scaling that a `rope_parameters` or `rope_scaling` object means.

    Args:
        where: its folder, for messages.

    Raises:
        HuggingFaceError: a kind that this model does not compute, or one without its numbers.
    """
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return RopeScalingConfig()
    if kind not in _USED:
        raise HuggingFaceError(
            f"{where} scales its rotary positions by {kind!r}, which gristmill does not compute: "
            f"it knows {', '.join(_USED)}"
        )
    given = {_NAMES[name]: rope[name] for name in _USED[kind] if rope.get(name) is not None}
    needed = ("factor",) if kind == "linear" else ("factor", "original_positions")
    missing = [name for name in needed if name not in given]
    if missing:
        raise HuggingFaceError(
            f"{where}: its rope scaling {kind!r} lacks {', '.join(missing)}: config.json is "
            "incomplete"
        )
    for name, value in given.items():
        if name not in ("original_positions", "truncate"):
            given[name] = float(value)
    return RopeScalingConfig(kind=kind, **given)


def rope_entries(config: ModelConfig) -> dict[str, Any]:
    """Return the entries of config.json about rotary positions, for both versions."""
    scaling = config.rope_scaling
    if scaling.kind == "none":
        parameters: dict[str, Any] = {"rope_type": "default"}
        return {
            "rope_theta": config.rope_theta,
            "rope_scaling": None,
            "rope_parameters": parameters | {"rope_theta": config.rope_theta},
        }
    values: dict[str, Any] = {"rope_type": scaling.kind}
    for name in _USED[scaling.kind]:
        value = getattr(scaling, _NAMES[name])
        if value or name == "truncate":
            values[name] = value
    return {
        "rope_theta": config.rope_theta,
        "rope_scaling": values,
        "rope_parameters": values | {"rope_theta": config.rope_theta},
    }
