"""Token files in, a trained model out: the recipe on one page.

`pretrain` is the door: it checks what it is given, starts the ranks (or is one of them) and tells
the result. `train` is what every rank does: open the data, build its slice of the model, go on
from the newest checkpoint, take steps, save, score.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .blend import require_samples
from .checkpoint import Checkpointer, Facts, find_checkpoints
from .config import PretrainConfig
from .data import Batches, TrainingData, open_data
from .evaluate import Evaluation, count_tokens, evaluate, load_token_bytes, unigram_nll
from .grid import Grid, make_grid
from .hugging_face_import import load_hugging_face
from .launch import count_ranks, is_launched, launch, rank, stop_signals
from .metrics import Clock, MetricsLog, StepMetrics
from .model import Transformer, count_parameters, initialize
from .optimizer import make_optimizer
from .precision import compute_dtype
from .report import print_report, read_report, write_report
from .resolved import check_run, resolve_config
from .resume import find_resume
from .sampling import generate, load_model, validation_prompts
from .schedule import learning_rate
from .sharding import shard_model
from .step import take_step

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
    data = open_data(config, output)
    num_ranks = count_ranks(config)
    check_run(config, data, num_ranks)
    found = find_resume(output, config, data)
    data = found.data if found else data
    require_samples(data.blend, _num_samples(config))
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


def _num_samples(config: PretrainConfig) -> int:
    """Return the samples of the whole training."""
    return config.training.num_steps * config.training.global_batch_size


@dataclass(slots=True)
class _Training:
    """What one rank works with."""

    config: PretrainConfig
    output: Path
    device: torch.device
    grid: Grid
    data: TrainingData
    model: Transformer
    optimizer: torch.optim.AdamW
    checkpointer: Checkpointer
    log: MetricsLog | None
    step: int

    def save(self) -> Path:
        """Write a checkpoint of this moment."""
        consumed = self.step * self.config.training.global_batch_size
        facts = Facts(
            step=self.step,
            consumed_samples=consumed,
            config=self.config,
            vocab_size=self.data.vocab_size,
            data=self.data.state(consumed),
            layout={
                "tensor": self.grid.tensor.size,
                "data": self.grid.data.size,
                "expert": self.grid.expert.size,
                "shard": self.grid.shard.size,
            },
        )
        keep = self.config.checkpoint.keep_last
        return self.checkpointer.save(facts, self.data.tokenizer_folder, keep)


def train(config: PretrainConfig, output: Path) -> bool:
    """Do the work of one rank; return whether all steps are done.

    Args:
        config: resolved by `resolve_config`.
    """
    with rank(config) as device, stop_signals() as stop:
        training = _set_up(config, output, device)
        try:
            if not _take_steps(training, stop):
                folder = training.save()
                if training.grid.is_main:
                    logger.info("asked to stop: saved %s; run again to go on", folder)
                return False
            training.save()
            _score(training)
        finally:
            if training.log:
                training.log.close()
    return True


def _set_up(config: PretrainConfig, output: Path, device: torch.device) -> _Training:
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
    shard_model(model, grid, device)
    optimizer = make_optimizer(model, config.optimizer)
    checkpointer = Checkpointer(output, model, optimizer, grid)
    if found:
        checkpointer.load(found.folder, found.facts)
    elif config.training.init_from:
        load_hugging_face(model, config.training.init_from)
    else:
        initialize(model, config.training.seed)
    step = found.facts.step if found else 0
    if grid.is_main:
        logger.info(
            "%s parameters, %d groups, vocabulary %d | %s on %s, %s | %s",
            f"{count_parameters(config.model, data.vocab_size):,}",
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
    num_steps, tensorboard = config.training.num_steps, config.log.tensorboard
    log = MetricsLog(output, step, num_steps, tensorboard) if grid.is_main else None
    return _Training(config, output, device, grid, data, model, optimizer, checkpointer, log, step)


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
    epochs, name = max(zip(data.blend.epochs(_num_samples(config)), data.blend.names, strict=True))
    if epochs > _MANY_EPOCHS:
        logger.warning(
            "%s is repeated %.0f times: a model learns little from more than %d epochs and then "
            "learns its texts by heart. Take more text, or lower training.num_steps",
            name,
            epochs,
            _MANY_EPOCHS,
        )


def _take_steps(run: _Training, stop: threading.Event) -> bool:
    """Train until all steps are done (True) or a rank was asked to stop (False)."""
    config, settings = run.config, run.config.training
    batches = Batches(
        run.data,
        settings.global_batch_size,
        run.grid.data,
        run.step,
        settings.num_steps,
        pinned=run.device.type == "cuda",
    )
    clock = Clock()
    try:
        while run.step < settings.num_steps:
            with clock.waiting():
                batch = batches.next()
            rate = learning_rate(
                run.step, config.optimizer.learning_rate, config.schedule, settings.num_steps
            )
            result = take_step(
                run.model,
                run.optimizer,
                batch,
                run.grid,
                micro_batch_size=settings.micro_batch_size,
                learning_rate=rate,
                clip_norm=config.optimizer.clip_norm,
                stop=stop.is_set(),
            )
            run.step += 1
            clock.add(result.num_tokens)
            last = run.step == settings.num_steps
            if run.log and (_is_due(run.step, config.log.every_steps) or last or result.stop):
                tokens_per_second, data_wait_share = clock.read()
                consumed = run.step * settings.global_batch_size
                run.log.log(
                    StepMetrics(
                        step=run.step,
                        loss=result.loss,
                        learning_rate=rate,
                        gradient_norm=result.gradient_norm,
                        tokens_per_second=tokens_per_second,
                        data_wait_share=data_wait_share,
                        consumed_samples=consumed,
                        consumed_tokens=run.data.blend.num_tokens(consumed),
                    )
                )
            if result.stop and not last:
                return False
            with clock.paused():
                if not last and _is_due(run.step, config.checkpoint.every_steps):
                    run.save()
                if not last and _is_due(run.step, config.evaluate.every_steps):
                    _log_evaluation(run, _evaluate(run, config.evaluate.max_windows))
    finally:
        batches.close()
    return True


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _evaluate(run: _Training, max_windows: int, unigram: Any = None) -> Evaluation:
    settings = run.config.evaluate
    return evaluate(
        run.model,
        run.data.validation,
        run.grid,
        batch_size=settings.batch_size or run.config.training.micro_batch_size,
        max_windows=max_windows,
        token_bytes=load_token_bytes(run.data.tokenizer_folder, run.data.vocab_size),
        unigram_nll=unigram,
    )


def _log_evaluation(run: _Training, evaluation: Evaluation) -> None:
    if run.log is None:
        return
    values = {"loss": evaluation.total.loss}
    values |= {f"loss/{name}": score.loss for name, score in evaluation.groups.items()}
    scores = {"total": evaluation.total, **evaluation.groups}
    for name, score in scores.items():
        if score.bits_per_byte is not None:
            values[f"bits_per_byte/{name}"] = score.bits_per_byte
    run.log.log_evaluation(run.step, values)


def _score(run: _Training) -> None:
    """Evaluate at the end, and write the report."""
    report: dict[str, Any] = {
        "step": run.step,
        "consumed_tokens": run.data.blend.num_tokens(
            run.step * run.config.training.global_batch_size
        ),
        "checkpoint": f"checkpoints/step_{run.step:08d}",
    }
    if run.data.validation:
        unigram = None
        if run.config.evaluate.unigram_baseline:
            counts = count_tokens(run.data.train, run.data.vocab_size, run.grid.world, run.device)
            unigram = unigram_nll(counts)
        evaluation = _evaluate(run, run.config.evaluate.final_max_windows, unigram)
        _log_evaluation(run, evaluation)
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
    if data.tokenizer_folder is None or settings.max_tokens == 0:
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
