"""A config in, the same config with what it leaves open filled in out; or why it cannot work."""

from __future__ import annotations

import dataclasses
import math
from typing import cast

from .config import Precision, PretrainConfig, longest_sequence
from .config_check import check
from .config_masking import check_masking_config
from .data import TrainingData
from .grid import check_data_ranks
from .launch import choose_device
from .memory import require_memory
from .model import pad_vocabulary, resolve
from .parallel import check_experts, check_layout, check_sequence
from .precision import compute_dtype, precision_name
from .presets import apply_preset
from .schedule import batch_sizes
from .start import require_vocabulary, settle_start, start_model


def resolve_config(config: PretrainConfig) -> PretrainConfig:
    """Check the config and fill in what it leaves open: model sizes and number format."""
    config = dataclasses.replace(config, model=apply_preset(config.model))
    check(config)
    dtype = compute_dtype(config.training.precision, choose_device(config))
    precision = cast(Precision, precision_name(dtype))
    start = config.training.init_from and settle_start(config.training.init_from)
    training = dataclasses.replace(config.training, precision=precision, init_from=start)
    model = start_model(start, config.model) if start else resolve(config.model)
    check_masking_config(config.masking, model.causal)
    if model.positions == "learned":
        longest = longest_sequence(config.data)
        model = dataclasses.replace(model, max_positions=model.max_positions or longest)
        if model.max_positions < longest:
            raise ValueError(
                f"model.max_positions = {model.max_positions} is less than the longest "
                f"sequence_length, {longest}: its last tokens would have no position. Raise it, or "
                "set 0"
            )
    return dataclasses.replace(config, model=model, training=training)


def settle_steps(config: PretrainConfig, data: TrainingData) -> PretrainConfig:
    """Return the config with the steps that `training.num_epochs` takes on this data."""
    epochs = config.training.num_epochs
    if epochs == 0:
        return config
    datasets = data.blend.phases[0].blend.datasets
    samples = math.ceil(epochs * sum(dataset.samples_per_epoch for dataset in datasets))
    sizes = batch_sizes(config)
    steps = samples // config.training.global_batch_size
    while sizes.first_sample(steps) < samples:
        steps += 1
    training = dataclasses.replace(config.training, num_steps=steps)
    return dataclasses.replace(config, training=training)


def check_run(
    config: PretrainConfig, data: TrainingData, num_ranks: int, *, start: bool = True
) -> None:
    """Refuse a layout that does not divide the model or the batch, before anything starts.

    Args:
        start: whether a training follows, so that it must also fit into memory.

    Raises:
        ValueError: names the numbers and what to change.
    """
    tensor = config.parallel.tensor_parallel_size
    if config.training.init_from:
        require_vocabulary(config.training.init_from, data.vocab_size, data.tokenizer_folder)
    check_layout(config.model, pad_vocabulary(data.vocab_size, config.model.vocab_multiple), tensor)
    copies = config.parallel.data_parallel_size or max(1, num_ranks // tensor)
    check_data_ranks(config.parallel, copies)
    check_experts(config.model, config.parallel.expert_parallel_size)
    if config.parallel.sequence_parallel:
        phases = (phase.sequence_length for phase in config.data.phases)
        for length in (config.data.sequence_length, *phases):
            check_sequence(length, tensor)
    size, micro = config.training.global_batch_size, config.training.micro_batch_size
    if size % (copies * micro):
        raise ValueError(
            f"training.global_batch_size = {size} is not a multiple of training.micro_batch_size = "
            f"{micro} times {copies} data-parallel copies: every copy takes an equal share in "
            "equal parts. Change one of them"
        )
    if start:
        require_memory(config, data.vocab_size, num_ranks)
