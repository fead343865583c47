"""A checkpoint of a low-rank fine-tuning in, a folder that PEFT reads out.

    adapter_config.json           rank, alpha, names of the adapted modules
    adapter_model.safetensors     A and B of each: base_model.model.MODULE.lora_A.weight
    tokenizer.json, chat_template.jinja, ...    as they lie in the checkpoint

Names are those of the Hugging Face family of the model (hugging_face_names.py), which is exported,
or was imported, apart.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import torch

from .checkpoint import load_tensors, locate, read_facts
from .config_lora import LoraConfig
from .config_model import ModelConfig
from .exporting import whole_folder
from .hugging_face_error import HuggingFaceError
from .hugging_face_names import file_tensors
from .lora import adapted_matrices
from .model import Transformer
from .start import is_checkpoint

logger = logging.getLogger(__name__)


def export_adapter(checkpoint: str | os.PathLike[str], output: str | os.PathLike[str]) -> Path:
    """Write the low-rank matrices of a checkpoint as PEFT's adapter for its model.

    Args:
        checkpoint: a checkpoint folder, or the output folder of a run (its newest one).
        output: a folder that does not exist yet, or is empty.

    Raises:
        CheckpointError: there is no checkpoint, or it is damaged.
        HuggingFaceError: it holds no low-rank matrices, or PEFT has no place for them.
    """
    from safetensors.torch import save_file

    folder, output = locate(checkpoint), Path(output)
    facts = read_facts(folder)
    lora, start = facts.config.lora, facts.config.training.init_from
    if lora.rank == 0:
        raise HuggingFaceError(
            f"{folder} holds a whole model, no low-rank matrices: export it without --adapter"
        )
    if is_checkpoint(start) and read_facts(locate(start)).vocab_size < facts.vocab_size:
        raise HuggingFaceError(
            f"{folder} has more ids than the model in {start}: an adapter cannot add rows to its "
            "embedding. Export without --adapter, which merges the two"
        )
    with torch.device("meta"):
        model = Transformer(facts.config.model, facts.vocab_size)
    linears = adapted_matrices(model, lora)
    modules = _modules(facts.config.model, list(linears))
    tensors: dict[str, torch.Tensor] = {}
    for name, linear in linears.items():
        outputs, inputs = linear.weight.shape
        pair = {"lora_a": torch.empty(lora.rank, inputs), "lora_b": torch.empty(outputs, lora.rank)}
        load_tensors({f"weight.{name}.{kind}": value for kind, value in pair.items()}, folder)
        for kind, theirs in (("lora_a", "lora_A"), ("lora_b", "lora_B")):
            tensors[f"base_model.model.{modules[name]}.{theirs}.weight"] = pair[kind]
    with whole_folder(output) as unfinished:
        save_file(tensors, unfinished / "adapter_model.safetensors", metadata={"format": "pt"})
        config = json.dumps(_peft_config(lora, start, list(modules.values())), indent=2)
        (unfinished / "adapter_config.json").write_text(config + "\n", encoding="utf-8")
        for path in sorted((folder / "tokenizer").glob("*.j*")):
            shutil.copyfile(path, unfinished / path.name)
    logger.info("exported the low-rank matrices of %s: %s", folder, output)
    return output


def _modules(config: ModelConfig, names: list[str]) -> dict[str, str]:
    """Return our names of adapted matrices -> those of the family's modules."""
    theirs = {
        tensor.parts[0].removesuffix(".weight"): name.removesuffix(".weight")
        for name, tensor in file_tensors(config).items()
        if len(tensor.parts) == 1 and not tensor.transposed and tensor.expert is None
    }
    missing = [name for name in names if name not in theirs]
    if missing:
        raise HuggingFaceError(
            f"PEFT has no place for the low-rank matrices of {missing[0]}: the Hugging Face family "
            "of this model (gpt2) joins or transposes that matrix. Export without --adapter, which "
            "merges them"
        )
    return {name: theirs[name] for name in names}


def _peft_config(lora: LoraConfig, base: str, modules: list[str]) -> dict[str, object]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.scale * lora.rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": sorted({module.rpartition(".")[2] for module in modules}),
        "inference_mode": True,
    }
