"""Token files in, a trained model, its scores and its text out.

    config ─► recipe ─► launch (one process a rank) ─► train: data ─► model ─► loss ─► optimizer
                                                           └► checkpoint ─► evaluate ─► sampling

Nothing heavy is imported before it is used: the command line needs the config classes only.
(No file has the name of a public function: the imported module would hide the function.)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .config import PretrainConfig as PretrainConfig

if TYPE_CHECKING:
    from .checkpoint import CheckpointError as CheckpointError
    from .checkpoint import describe_checkpoint as describe_checkpoint
    from .classifying import ClassifierSettings as ClassifierSettings
    from .classifying import classify_file as classify_file
    from .classifying import train_classifier as train_classifier
    from .exporting import export_model as export_model
    from .hugging_face_error import HuggingFaceError as HuggingFaceError
    from .launch import RankFailedError as RankFailedError
    from .plan import plan_pretrain as plan_pretrain
    from .recipe import PretrainResult as PretrainResult
    from .recipe import pretrain as pretrain
    from .sampling import generate as generate

_HOMES = {
    "CheckpointError": "checkpoint",
    "ClassifierSettings": "classifying",
    "HuggingFaceError": "hugging_face_error",
    "PretrainResult": "recipe",
    "RankFailedError": "launch",
    "classify_file": "classifying",
    "describe_checkpoint": "checkpoint",
    "export_model": "exporting",
    "generate": "sampling",
    "plan_pretrain": "plan",
    "pretrain": "recipe",
    "train_classifier": "classifying",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
