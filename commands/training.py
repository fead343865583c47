"""The trainer's commands: arguments in, one call of the trainer's door out (see `cli.py`)."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from ..config import ConfigError, save_config
from .training_arguments import (
    ChatArguments,
    EvaluateArguments,
    ExportArguments,
    FinetuneArguments,
    GenerateArguments,
    PretrainArguments,
)


def pretrain(arguments: PretrainArguments) -> None:
    """Run `gristmill pretrain`."""
    _train(arguments, "pretrain")


def finetune(arguments: FinetuneArguments) -> None:
    """Run `gristmill finetune`."""
    if not arguments.config.training.init_from:
        raise ConfigError(
            "nothing to fine-tune: name a model in training.init_from, the output folder of a "
            "training or a Hugging Face folder"
        )
    _train(arguments, "finetune")


def _train(arguments: PretrainArguments | FinetuneArguments, section: str) -> None:
    from ..trainer import plan_pretrain
    from ..trainer import pretrain as run

    output = Path(arguments.run.output)
    if arguments.plan:
        sys.stdout.write(plan_pretrain(arguments.config, output=output) + "\n")
        return

    def save() -> None:
        save_config(output / f"{section}.toml", arguments.run, **{section: arguments.config})

    result = run(arguments.config, output=output, on_start=save)
    if not result.finished:
        sys.exit(130)  # stopped by a signal, and said so: what follows in a script must not run


def generate(arguments: GenerateArguments) -> None:
    """Run `gristmill generate`."""
    from ..trainer.generating import read_rows, write_continuations
    from .prompting import prompts_of

    given = arguments.input
    rows = read_rows(given) if given else [{"prompt": prompt} for prompt in arguments.prompt]
    write_continuations(
        Path(arguments.checkpoint),
        prompts_of(arguments.checkpoint, rows),
        arguments.output or None,
        rows=rows,
        tensor_parallel_size=arguments.tensor_parallel_size,
        max_tokens=arguments.max_tokens,
        batch_size=arguments.batch_size,
        **dataclasses.asdict(arguments.sampling),
    )


def chat(arguments: ChatArguments) -> None:
    """Run `gristmill chat`."""
    from .chatting import talk

    talk(
        arguments.checkpoint,
        system=arguments.system,
        max_tokens=arguments.max_tokens,
        **dataclasses.asdict(arguments.sampling),
    )


def evaluate(arguments: EvaluateArguments) -> None:
    """Run `gristmill evaluate`."""
    from .evaluation import evaluate as run

    run(**vars(arguments))


def export(arguments: ExportArguments) -> None:
    """Run `gristmill export`."""
    from ..trainer import export_model

    if arguments.adapter:
        from ..trainer.adapter_export import export_adapter

        folder = export_adapter(arguments.checkpoint, arguments.output)
        sys.stdout.write(
            f"{folder}: load it with peft.PeftModel.from_pretrained(base_model, {str(folder)!r})\n"
        )
        return
    folder = export_model(arguments.checkpoint, arguments.output, precision=arguments.precision)
    sys.stdout.write(
        f"{folder}: load it with transformers.AutoModelForCausalLM.from_pretrained, or continue "
        f"its training with --training.init-from {folder}\n"
    )
