"""A Hugging Face folder in, the weights of this rank's slice of the model out.

Tensors are read one at a time out of memory-mapped safetensors, so that no process holds more
than one whole matrix beside its own slice.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from .config_model import ModelConfig
from .hugging_face_config import from_hugging_face, read_config
from .hugging_face_error import HuggingFaceError
from .hugging_face_names import VOCABULARY, file_tensors
from .model import Transformer, placements
from .parallel import Placement
from .sharding import assign

_WITHOUT_PLACE = (
    "rotary_emb.inv_freq",
    "attn.bias",
    "attn.masked_bias",
    "embeddings.position_ids",
    "lm_head.weight",
    "decoder.weight",
    "predictions.decoder.bias",
    "pooler.dense.weight",
    "pooler.dense.bias",
    "seq_relationship.weight",
    "seq_relationship.bias",
)
"""Ends of names that files carry and that hold nothing here: tables, masks, a tied head, and
BERT's head for pairs of sentences."""


_OWN = (
    "init_std",
    "vocab_multiple",
    "balance",
    "balance_loss_weight",
    "balance_bias_rate",
    "router_z_loss_weight",
)
_STRETCHING = ("rope_theta", "rope_scaling", "max_positions")
"""What a training may set anew, to go on with longer texts."""


def imported_model(folder: str | Path, wanted: ModelConfig) -> ModelConfig:
    """Return the model config of a folder, resolved.

    Args:
        wanted: the [pretrain.model] of the run. What it changes must agree with the folder, but for
            what is the run's own (`_OWN`: it says how to train), and for `rope_theta`,
            `rope_scaling` and `max_positions` of rotary positions, which stretch its context.

    Raises:
        HuggingFaceError: the folder cannot be read, or the two disagree.
    """
    found, _ = from_hugging_face(read_config(Path(folder)), str(folder))
    return agreed_model(found, wanted, folder)


def agreed_model(found: ModelConfig, wanted: ModelConfig, folder: str | Path) -> ModelConfig:
    """Return the model that a training starts from, with what is the run's own.

    Args:
        found: of the folder, resolved.
        wanted: see `imported_model`.

    Raises:
        HuggingFaceError: the two disagree.
    """
    found = dataclasses.replace(found, **{name: getattr(wanted, name) for name in _OWN})
    default = ModelConfig()
    if found.positions == "rotary":
        stretched = {
            name: getattr(wanted, name)
            for name in _STRETCHING
            if getattr(wanted, name) != getattr(default, name)
        }
        found = dataclasses.replace(found, **stretched)
    other = []
    for field in dataclasses.fields(ModelConfig):
        ours, theirs = getattr(wanted, field.name), getattr(found, field.name)
        if ours not in (getattr(default, field.name), theirs):
            other.append(f"model.{field.name} = {ours!r} (there {theirs!r})")
    if other:
        raise HuggingFaceError(
            f"the training starts from {folder}, whose model is another than asked for: "
            f"{', '.join(other)}. Leave these settings out: the folder says what they are"
        )
    return found


def load_hugging_face(model: Transformer, folder: str | Path) -> None:
    """Fill the model, or this rank's slice of it, with the weights of a folder.

    Padded rows of the vocabulary become 0, those of ids that the folder does not know the mean of
    the others (`fit_rows`). Numbers are converted to the model's format.

    Raises:
        HuggingFaceError: a tensor is missing, left over, or of another shape.
    """
    folder = Path(folder)
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    where = placements(model)
    with _open(folder) as files:
        left = set(files)
        tensors = file_tensors(model.config)
        for buffer in model.buffers():  # a family without it works as if it were 0
            buffer.zero_()
        experts: list[torch.Tensor] = []
        for name, tensor in tensors.items():
            found = next((n for n in _names(name) if n in files), None)
            if found is None:
                raise HuggingFaceError(
                    f"{folder} has no tensor {name}, which its config.json asks for: the folder is "
                    "incomplete; copy it again"
                )
            left.discard(found)
            if tensor.expert is not None:
                (own,) = tensor.parts
                if _is_here(tensor.expert, model.config.num_experts, where[own]):
                    whole = files[found].get_tensor(found)
                    shape = where[own].full_shape(named[own].shape)[1:]
                    _require_shape(whole, shape, folder, found, own)
                    within = Placement(tensor=where[own].tensor)
                    experts.append(within.slice(whole[None])[0].to(named[own].dtype))
                if tensor.expert + 1 == model.config.num_experts:  # they come in a row
                    assign(named[own], torch.stack(experts))
                    experts.clear()
                continue
            whole = files[found].get_tensor(found)
            for own, part in zip(tensor.parts, tensor.split(whole), strict=True):
                shape = where[own].full_shape(named[own].shape)
                fitted = fit_rows(part, shape, own, model.vocab_size)
                _require_shape(fitted, shape, folder, found, own)
                assign(named[own], where[own].slice(fitted))
    left = {name for name in left if not name.endswith(_WITHOUT_PLACE)}
    if left:
        raise HuggingFaceError(
            f"{folder} has tensors for which this model has no place: "
            f"{', '.join(sorted(left)[:5])}{' ...' if len(left) > 5 else ''}. It is another "
            "network than its config.json says"
        )


def _names(name: str) -> list[str]:
    """Return what files call a tensor: without the model's prefix, norms by their letters."""
    names = [name, name.split(".", 1)[1]]
    older = [n.replace("LayerNorm.weight", "LayerNorm.gamma") for n in names]
    return [*names, *(n.replace("LayerNorm.bias", "LayerNorm.beta") for n in older)]


def _is_here(expert: int, num_experts: int, where: Placement) -> bool:
    """Whether this rank holds the expert."""
    if where.expert is None:
        return True
    return expert * where.expert.num_slices // num_experts == where.expert.place


def _require_shape(
    part: torch.Tensor, shape: tuple[int, ...], folder: Path, found: str, own: str
) -> None:
    if tuple(part.shape) != shape:
        raise HuggingFaceError(
            f"{folder}: the tensor {found} has the shape {list(part.shape)}, but config.json means "
            f"{list(shape)} for {own}: the two do not belong together"
        )


def fit_rows(
    part: torch.Tensor, shape: tuple[int, ...], name: str, vocab_size: int
) -> torch.Tensor:
    """Return `part` with the rows of `shape`, where it is a vocabulary: cut, or padded with 0.

    Ids that it does not know begin as the mean of those that it knows: the new rows are in the
    midst of what the model is used to, and no id becomes likelier than all others by chance.
    """
    if name not in VOCABULARY:
        return part
    rows = part.new_zeros(shape[0], *part.shape[1:])
    known = min(len(part), vocab_size)
    rows[:known] = part[:known]
    if known < vocab_size:
        rows[known:vocab_size] = part.double().mean(dim=0).to(part.dtype)
    return rows


@contextmanager
def _open(folder: Path) -> Iterator[Mapping[str, Any]]:
    """Open all safetensors of a folder: tensor name -> the file that holds it."""
    from safetensors import SafetensorError, safe_open

    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    else:
        names = ["model.safetensors"]
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        for name in names:
            path = folder / name
            if not path.is_file():
                raise HuggingFaceError(
                    f"{path} is missing: weights are read from safetensors files only. A folder "
                    "with pytorch_model.bin can be converted: load it with `transformers` and "
                    "save it again"
                )
            try:
                file = stack.enter_context(safe_open(path, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise HuggingFaceError(
                    f"{path} is no whole safetensors file ({error}): copy it again"
                ) from error
            files |= dict.fromkeys(file.keys(), file)
        yield files
