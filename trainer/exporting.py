"""A checkpoint in, a Hugging Face folder out: config, safetensors, tokenizer, model card.

Weights are read from the checkpoint, whatever layout wrote it, and written one tensor after the
other: memory holds one at a time. The folder appears whole or not at all.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from ..indexed_dataset.atomic import sync_file, sync_folder
from .checkpoint import Facts, load_tensors, locate, read_facts
from .config import longest_sequence
from .hugging_face_config import family, to_hugging_face
from .hugging_face_error import HuggingFaceError
from .hugging_face_names import VOCABULARY, file_tensors
from .hugging_face_tensor import FileTensor
from .model import Transformer, count_parameters
from .model_card import model_card
from .safetensors_stream import StreamedSafetensors
from .start import load_trained
from .vocabulary import name_mask_token, token_text

logger = logging.getLogger(__name__)

ExportPrecision = Literal["auto", "float32", "bfloat16", "float16"]
CHAT_TEMPLATE = "chat_template.jinja"
MAX_FILE_BYTES = 4_000_000_000
"""Tensors of one safetensors file."""


def export_model(
    checkpoint: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    precision: ExportPrecision = "auto",
    max_file_bytes: int = MAX_FILE_BYTES,
) -> Path:
    """Write a folder that `transformers.AutoModelForCausalLM.from_pretrained` reads.

    Low-rank matrices are merged; `adapter_export.export_adapter` writes them alone.
    Of an encoder: `AutoModelForMaskedLM`.

    Args:
        checkpoint: a checkpoint folder, or the output folder of a run (its newest one).
        output: a folder that does not exist yet, or is empty.
        precision: number format of the weights; auto: bfloat16 if that was trained in, else
            float32.
        max_file_bytes: tensors of one file.

    Raises:
        CheckpointError: there is no checkpoint, or it is damaged.
        HuggingFaceError: the model has no counterpart there, or `output` is taken.
    """
    folder, output = locate(checkpoint), Path(output)
    facts = read_facts(folder)
    name: str = precision
    if precision == "auto":
        name = "bfloat16" if facts.config.training.precision == "bfloat16" else "float32"
    tensors = file_tensors(facts.config.model)
    with whole_folder(output) as unfinished:
        _write_weights(unfinished, folder, facts, tensors, getattr(torch, name), max_file_bytes)
        _write_texts(unfinished, folder, facts, name)
    logger.info("exported %s in %s: %s", folder, name, output)
    return output


@contextmanager
def whole_folder(output: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `output` when all is written, and vanishes if that fails.

    Raises:
        HuggingFaceError: `output` is there, and not an empty folder.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise HuggingFaceError(f"{output} is taken, and nothing was written: name a new folder")
    unfinished = output.with_name(f"{output.name}.unfinished-{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        for path in unfinished.iterdir():
            sync_file(path)
        sync_folder(unfinished)
        if output.exists():
            output.rmdir()
        os.replace(unfinished, output)
        sync_folder(output.parent)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _write_weights(
    output: Path,
    checkpoint: Path,
    facts: Facts,
    tensors: Mapping[str, FileTensor],
    dtype: torch.dtype,
    max_file_bytes: int,
) -> None:
    """Write the files, one of our tensors in memory at a time (all experts of a matrix are one)."""
    config, held = facts.config.model, _shapes(facts)
    read = _reader(facts, held, checkpoint)
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, torch.dtype] = {}
    for name, tensor in tensors.items():
        shapes[name] = tensor.shape([held[part].shape for part in tensor.parts])
        if tensor.parts[0] in VOCABULARY:  # padded rows are ours alone
            shapes[name] = (facts.vocab_size, *shapes[name][1:])
        is_bias_of_router = tensor.parts[0].endswith("router.bias")
        dtypes[name] = torch.float32 if is_bias_of_router else dtype  # its steps are small
    sizes = {name: dtypes[name].itemsize * math.prod(shape) for name, shape in shapes.items()}
    files = _divide(sizes, max_file_bytes)
    weight_map: dict[str, str] = {}
    last: tuple[str, ...] = ()
    whole: list[torch.Tensor] = []
    for number, names in enumerate(files, start=1):
        path = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        path = path if len(files) > 1 else "model.safetensors"
        with StreamedSafetensors(output / path, {n: (shapes[n], dtypes[n]) for n in names}) as file:
            for name in names:
                tensor = tensors[name]
                if tensor.parts != last:
                    last, whole = tensor.parts, read(tensor.parts)
                written = tensor.join(whole)
                file.write(name, written[: shapes[name][0]].to(dtypes[name]))
        weight_map |= dict.fromkeys(names, path)
        if len(files) > 1:
            logger.info("wrote %s (%d of %d)", path, number, len(files))
    if config.num_experts and family(config) != "dots1":
        _require_no_bias(held, read)
    if len(files) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        _write_json(output / "model.safetensors.index.json", index)


def _shapes(facts: Facts) -> dict[str, torch.Tensor]:
    """Return every parameter and buffer of the whole model, without memory."""
    with torch.device("meta"):
        model = Transformer(
            facts.config.model,
            facts.vocab_size,
            compute_dtype=getattr(torch, facts.config.training.precision),
        )
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


Read = Callable[[tuple[str, ...]], list[torch.Tensor]]


def _reader(facts: Facts, held: Mapping[str, torch.Tensor], checkpoint: Path) -> Read:
    """Return a function that reads whole tensors of ours, whatever the layout that wrote them.

    Low-rank matrices are merged into the model that they adapt: then memory holds all of it.
    """
    if facts.config.lora.rank:
        dtype = getattr(torch, facts.config.training.precision)
        model = Transformer(facts.config.model, facts.vocab_size, compute_dtype=dtype)
        load_trained(model, checkpoint, facts)
        merged = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        return lambda parts: [merged[part].detach() for part in parts]

    def read(parts: tuple[str, ...]) -> list[torch.Tensor]:
        whole = {part: torch.empty_like(held[part], device="cpu").detach() for part in parts}
        load_tensors({f"weight.{part}": value for part, value in whole.items()}, checkpoint)
        return list(whole.values())

    return read


def _require_no_bias(held: Mapping[str, torch.Tensor], read: Read) -> None:
    """Refuse routers whose biases choose other experts than the family's, which has none."""
    for name in held:
        if name.endswith("router.bias") and read((name,))[0].any():
            raise HuggingFaceError(
                'the routers of this model choose experts with a bias (model.balance = "bias"), '
                "and the Hugging Face families with a softmax in the router have none: the "
                'exported model would choose others. Train with model.balance = "loss", or with '
                'router_score = "sigmoid", query_key_norm and num_shared_experts (family dots1)'
            )


def _divide(sizes: Mapping[str, int], most: int) -> list[list[str]]:
    """Group names in their order so that a group's sizes stay below `most`, where one can."""
    files: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if files[-1] and filled + size > most:
            files.append([])
            filled = 0
        files[-1].append(name)
        filled += size
    return files


def _write_texts(output: Path, checkpoint: Path, facts: Facts, dtype: str) -> None:
    """Write config, generation config, tokenizer and model card."""
    config, eod_id = facts.config, facts.data["eod_id"]
    length = longest_sequence(config.data)
    values = to_hugging_face(config.model, facts.vocab_size, length, eod_id, dtype)
    _write_json(output / "config.json", values)
    if config.model.causal:
        generation: dict[str, Any] = {"bos_token_id": eod_id, "eos_token_id": eod_id}
        stops = checkpoint / "tokenizer" / "generation_config.json"
        if stops.is_file():  # the end of the assistant's turn as well
            generation |= json.loads(stops.read_bytes())
        _write_json(output / "generation_config.json", generation)
    tokenizer = checkpoint / "tokenizer" / "tokenizer.json"
    template = tokenizer.with_name(CHAT_TEMPLATE)
    if template.is_file():
        shutil.copyfile(template, output / CHAT_TEMPLATE)
    if tokenizer.is_file():
        shutil.copyfile(tokenizer, output / "tokenizer.json")
        settings: dict[str, Any] = {}
        beside = tokenizer.with_name("tokenizer_config.json")
        if beside.is_file():
            settings = json.loads(beside.read_bytes())
        settings.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
        settings.setdefault("clean_up_tokenization_spaces", False)
        settings.setdefault("model_max_length", config.model.max_positions or length)
        end = token_text(tokenizer, eod_id)
        if end is not None:
            settings.setdefault("eos_token", end)
            settings.setdefault("bos_token", end)
        mask_id = facts.data.get("mask_id")
        if mask_id is not None:
            mask_token = name_mask_token(output / "tokenizer.json", mask_id)
            settings.setdefault("mask_token", mask_token)
            settings.setdefault("pad_token", end or mask_token)
        _write_json(output / "tokenizer_config.json", settings)
    else:
        logger.warning("%s has no tokenizer: the export has none either", checkpoint)
    report = checkpoint.parent.parent / "pretrain_report.json"
    scores = json.loads(report.read_bytes()) if report.is_file() else {}
    card = model_card(
        facts,
        count_parameters(config.model, facts.vocab_size),
        scores if scores.get("step") == facts.step else {},
        is_chat=template.is_file(),
    )
    (output / "README.md").write_text(card, encoding="utf-8")


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
