"""Settings in; an error that names the field, or nothing, out: values that can never work."""

from __future__ import annotations

from .config import DataConfig, PretrainConfig
from .config_lora import check_lora
from .config_masking import check_masking_config
from .config_model import check_model


def check(config: PretrainConfig) -> None:
    """Refuse values that can never work, whatever the data.

    Raises:
        ValueError: names the field, its value and what to set instead.
    """
    model, training, parallel = config.model, config.training, config.parallel
    positive = {
        "model.num_layers": model.num_layers,
        "model.hidden_size": model.hidden_size,
        "model.num_heads": model.num_heads,
        "model.vocab_multiple": model.vocab_multiple,
        "data.sequence_length": config.data.sequence_length,
        "training.global_batch_size": training.global_batch_size,
        "training.micro_batch_size": training.micro_batch_size,
        "parallel.tensor_parallel_size": parallel.tensor_parallel_size,
        "parallel.expert_parallel_size": parallel.expert_parallel_size,
        "log.every_steps": config.log.every_steps,
        "optimizer.learning_rate": config.optimizer.learning_rate,
        "model.rope_theta": model.rope_theta,
    }
    for name, number in positive.items():
        if number <= 0:
            raise ValueError(f"{name} is {number}: it must be greater than 0")
    not_negative = {
        "model.num_kv_heads": model.num_kv_heads,
        "model.ffn_size": model.ffn_size,
        "model.head_size": model.head_size,
        "model.max_positions": model.max_positions,
        "model.num_experts": model.num_experts,
        "model.expert_ffn_size": model.expert_ffn_size,
        "model.num_shared_experts": model.num_shared_experts,
        "model.balance_loss_weight": model.balance_loss_weight,
        "model.balance_bias_rate": model.balance_bias_rate,
        "model.router_z_loss_weight": model.router_z_loss_weight,
        "data.alpha": config.data.alpha,
        "data.vocab_size": config.data.vocab_size,
        "data.max_epochs": config.data.max_epochs,
        "data.block_length": config.data.block_length,
        "optimizer.weight_decay": config.optimizer.weight_decay,
        "optimizer.clip_norm": config.optimizer.clip_norm,
        "optimizer.spike_factor": config.optimizer.spike_factor,
        "optimizer.max_skipped_steps": config.optimizer.max_skipped_steps,
        "training.num_steps": training.num_steps,
        "training.num_epochs": training.num_epochs,
        "training.initial_batch_size": training.initial_batch_size,
        "training.batch_warmup_tokens": training.batch_warmup_tokens,
        "training.loss_chunk_tokens": training.loss_chunk_tokens,
        "training.collect_garbage_every": training.collect_garbage_every,
        "log.profile_steps": config.log.profile_steps,
        "schedule.warmup_steps": config.schedule.warmup_steps,
        "schedule.decay_steps": config.schedule.decay_steps,
        "parallel.data_parallel_size": parallel.data_parallel_size,
        "parallel.threads_per_rank": parallel.threads_per_rank,
        "parallel.shard_size": parallel.shard_size,
        "checkpoint.every_steps": config.checkpoint.every_steps,
        "checkpoint.keep_last": config.checkpoint.keep_last,
        "evaluate.every_steps": config.evaluate.every_steps,
        "evaluate.max_windows": config.evaluate.max_windows,
        "evaluate.final_max_windows": config.evaluate.final_max_windows,
        "evaluate.batch_size": config.evaluate.batch_size,
        "generate.max_tokens": config.generate.max_tokens,
        "generate.temperature": config.generate.temperature,
        "generate.top_k": config.generate.top_k,
    }
    for name, number in not_negative.items():
        if number < 0:
            raise ValueError(f"{name} is {number}: it must not be negative")
    if (training.num_steps > 0) == (training.num_epochs > 0):
        raise ValueError(
            f"training.num_steps is {training.num_steps} and training.num_epochs is "
            f"{training.num_epochs:g}: one of them says how long the training is, and the other is "
            "0. Set them so"
        )
    check_model(model)
    check_lora(config.lora, training.init_from, config.optimizer.kind)
    if not training.init_from:  # which says whether it is an encoder
        check_masking_config(config.masking, model.causal)
    initial, final = training.initial_batch_size, training.global_batch_size
    if initial and final % initial:
        raise ValueError(
            f"training.initial_batch_size = {initial} does not divide training.global_batch_size = "
            f"{final}: the batch grows to it in equal increments. Choose a divisor"
        )
    if bool(initial) != bool(training.batch_warmup_tokens):
        raise ValueError(
            f"training.initial_batch_size = {initial} and training.batch_warmup_tokens = "
            f"{training.batch_warmup_tokens}: a batch-size warm-up needs both, set the other too"
        )
    _check_order(config.data)
    if not 0 <= config.schedule.decay_fraction <= 1 or not 0 <= config.schedule.minimum_ratio <= 1:
        raise ValueError("schedule.decay_fraction and schedule.minimum_ratio must lie in 0..1")
    if not 0 < config.generate.top_p <= 1:
        raise ValueError(f"generate.top_p is {config.generate.top_p}: it must lie in (0, 1]")


def _check_order(data: DataConfig) -> None:
    """Refuse what Megatron's order has no counterpart for."""
    asked = {
        "data.phases": data.phases,
        "data.max_epochs": data.max_epochs,
        "data.max_epochs_of": data.max_epochs_of,
        "data.block_length": data.block_length,
        "data.allow_changed_blend": data.allow_changed_blend,
    }
    found = [name for name, value in asked.items() if value]
    if data.order == "megatron" and found:
        raise ValueError(
            f'data.order = "megatron" and {", ".join(found)}: Megatron\'s order is one for the '
            "whole training, without phases, caps or changes. Leave that out, or set data.order = "
            '"stable"'
        )
