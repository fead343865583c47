"""Token files in, a trained model out: the recipe on one page.

`pretrain` is the door: it checks what it is given, starts the ranks (or is one of them) and tells
the result. `train` is what every rank does: open the data, build its slice of the model, go on
from the newest checkpoint, take steps, save, score.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .activations import checkpoint_activations
from .blend import require_samples
from .checkpoint import find_checkpoints
from .checkpoint_writer import Checkpointer
from .compiling import compile_blocks
from .config import PretrainConfig
from .data import TrainingData, open_data
from .evaluate import count_tokens, unigram_nll
from .grid import make_grid
from .guard import Guard
from .launch import count_ranks, is_launched, launch, rank, stop_signals
from .loop import take_steps
from .lora import add_lora, count_lora, initialize_lora
from .metrics import MetricsLog, require_wandb
from .model import Transformer, count_parameters, initialize
from .optimizer import make_optimizer
from .precision import compute_dtype
from .report import print_report, read_report, write_report
from .resolved import check_run, resolve_config, settle_steps
from .resume import find_resume
from .sampling import generate, load_model, validation_prompts
from .schedule import batch_sizes, num_samples
from .sharding import shard_model
from .start import load_start
from .training import Training

logger = logging.getLogger(__name__)

_NUM_PROMPTS = 4
_PROMPT_TOKENS = 16
_MANY_EPOCHS = (
    16  # repeated data is worth little from here on (Muennighoff et al. 2023, arXiv:2305.16264)
)


@dataclass(frozen=True, slots=True)
class PretrainResult:
    """What a training has come to."""

    step: int
    """Optimizer steps taken."""
    finished: bool
    """Whether these are all; False after a SIGTERM."""
    checkpoint: Path
    """Folder of the newest checkpoint."""
    report: Mapping[str, Any]
    """Content of OUTPUT/pretrain_report.json; empty if not finished."""


def pretrain(
    config: PretrainConfig, *, output: str | Path, on_start: Callable[[], None] | None = None
) -> PretrainResult:
    """Train to the end, from the newest checkpoint in `output` if there is one.

    Starts its own ranks, unless torchrun has started this process as one. A finished training is
    not repeated. On SIGTERM a checkpoint is saved first.

    Args:
        config: the settings.
        output: folder of the run, with its data in `data` unless `data.path` says otherwise.
        on_start: called by one process when nothing was refused, before the first step: what it
            writes (the config, say) never overwrites that of a run that was not to be touched.

    Raises:
        ValueError: settings, data, layout or checkpoint that do not fit; says what to do.
        RankFailedError: a rank died.
    """
    output = Path(output)
    config = resolve_config(config)
    if config.log.wandb:
        require_wandb()
    data = open_data(config, output)
    config = settle_steps(config, data)
    num_ranks = count_ranks(config)
    check_run(config, data, num_ranks)
    found = find_resume(output, config, data)
    data = found.data if found else data
    require_samples(data.blend, num_samples(config))
    if on_start is not None and int(os.environ.get("RANK", "0")) == 0:
        on_start()
    report = read_report(output)
    done = found is not None and found.facts.step == config.training.num_steps
    if found and done and report and report["step"] == found.facts.step:
        logger.info("already trained: all %d steps of %s are done", found[1].step, output)
    elif is_launched() or num_ranks == 1:
        done = train(config, output)
    else:
        launch(config, output, num_ranks)
        done = find_checkpoints(output)[-1].name == f"step_{config.training.num_steps:08d}"
    return _conclude(config, output, data, done)


def train(config: PretrainConfig, output: Path) -> bool:
    """Do the work of one rank; return whether all steps are done.

    Args:
        config: resolved by `resolve_config`.
    """
    with rank(config) as device, stop_signals() as stop:
        training = _set_up(config, output, device)
        try:
            if not take_steps(training, stop):
                folder = training.save()
                if training.grid.is_main:
                    logger.info("asked to stop: saved %s; run again to go on", folder)
                return False
            training.save()
            _score(training)
        finally:
            training.checkpointer.close()
            if training.log:
                training.log.close()
    return True


def _set_up(config: PretrainConfig, output: Path, device: torch.device) -> Training:
    """Open the data, build this rank's slice of the model, restore the newest checkpoint."""
    parallel = config.parallel
    grid = make_grid(parallel)
    data = open_data(config, output)
    check_run(config, data, grid.world.size)
    found = find_resume(output, config, data)
    data = found.data if found else data
    dtype = compute_dtype(config.training.precision, device)
    with torch.device("meta"):  # memory for what this rank holds only
        model = Transformer(
            config.model,
            data.vocab_size,
            grid.tensor,
            dtype,
            expert=grid.expert,
            sequence_parallel=parallel.sequence_parallel,
        )
        add_lora(model, config.lora)
    shard_model(model, grid, device)
    optimizer = make_optimizer(model, config.optimizer, grid)
    checkpointer = Checkpointer(output, model, optimizer, grid)
    adapts = config.lora.rank > 0
    if config.training.init_from and (adapts or not found):
        load_start(model, config.training.init_from)
    if found:
        checkpointer.load(found.folder, found.facts)
    elif adapts:
        initialize_lora(model, config.training.seed)
    elif not config.training.init_from:
        initialize(model, config.training.seed)
    checkpoint_activations(model, config.training.activation_checkpointing)
    compile_blocks(model, config.training.compile, tell=grid.is_main)
    step = found.facts.step if found else 0
    guard = Guard(config.optimizer, device, **(found.facts.guard if found else {}))
    if grid.is_main:
        logger.info(
            "%s parameters%s, %d groups, vocabulary %d | %s on %s, %s | %s",
            f"{count_parameters(config.model, data.vocab_size):,}",
            f" and {count_lora(model):,} of low rank beside them" if adapts else "",
            len(data.train),
            data.vocab_size,
            grid.describe(parallel.sequence_parallel),
            device.type,
            config.training.precision,
            f"resuming from {found.folder}"
            if found
            else f"starting from {config.training.init_from or 'random weights'}",
        )
        _warn(config, data)
    num_steps = config.training.num_steps
    return Training(
        config=config,
        output=output,
        device=device,
        grid=grid,
        data=data,
        model=model,
        optimizer=optimizer,
        guard=guard,
        checkpointer=checkpointer,
        log=MetricsLog(output, step, num_steps, config.log) if grid.is_main else None,
        sizes=batch_sizes(config),
        step=step,
        skipped_steps=found.facts.skipped_steps if found else 0,
    )


def _warn(config: PretrainConfig, data: TrainingData) -> None:
    """Say what is allowed but seldom meant."""
    num_steps, warmup = config.training.num_steps, config.schedule.warmup_steps
    if warmup >= num_steps:
        logger.warning(
            "schedule.warmup_steps is %d and training.num_steps %d: the learning rate never "
            "reaches its peak",
            warmup,
            num_steps,
        )
    epochs, name = max(zip(data.blend.epochs(num_samples(config)), data.blend.names, strict=True))
    if epochs > _MANY_EPOCHS:
        logger.warning(
            "%s is repeated %.0f times: a model learns little from more than %d epochs and then "
            "learns its texts by heart. Take more text, or lower training.num_steps",
            name,
            epochs,
            _MANY_EPOCHS,
        )


def _score(run: Training) -> None:
    """Evaluate at the end, and write the report."""
    report: dict[str, Any] = {
        "step": run.step,
        "consumed_tokens": run.data.blend.num_tokens(run.consumed_samples),
        "checkpoint": f"checkpoints/step_{run.step:08d}",
    }
    if run.data.masking is not None:
        report["masked_share"] = run.data.masking.share
    if run.data.validation:
        unigram = None
        if run.config.evaluate.unigram_baseline:
            counts = count_tokens(run.data.train, run.data.vocab_size, run.grid.world, run.device)
            unigram = unigram_nll(counts)
        evaluation = run.evaluate(run.config.evaluate.final_max_windows, unigram)
        report |= evaluation.to_dict()
    if run.grid.is_main:
        write_report(run.output, report)


def _conclude(
    config: PretrainConfig, output: Path, data: TrainingData, finished: bool
) -> PretrainResult:
    """Continue a few texts, and tell what has come out: on one process only."""
    folder = find_checkpoints(output)[-1]
    step = int(folder.name.removeprefix("step_"))
    if not finished:
        return PretrainResult(step, False, folder, {})
    report = read_report(output) or {}
    if int(os.environ.get("RANK", "0")) == 0:
        if "samples" not in report:
            report["samples"] = _samples(config, folder, data)
            write_report(output, report)
        print_report(report, output)
    return PretrainResult(step, True, folder, report)


def _samples(config: PretrainConfig, folder: Path, data: TrainingData) -> list[dict[str, str]]:
    """Return prompts with their continuations; none where there is no tokenizer."""
    settings = config.generate
    if data.tokenizer_folder is None or settings.max_tokens == 0 or not config.model.causal:
        return []
    trained = load_model(folder)
    prompts = list(settings.prompts) or validation_prompts(
        trained.tokenizer, data.validation, _NUM_PROMPTS, _PROMPT_TOKENS
    )
    texts = generate(
        trained,
        prompts,
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        seed=config.training.seed,
    )
    return [{"prompt": p, "text": text} for p, text in zip(prompts, texts, strict=True)]
