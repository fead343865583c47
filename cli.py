"""The `gristmill` command: arguments in, one call of a room's door out.

Each command is a dataclass in `commands/`, turned into options by tyro, and a function here that
imports its room only when it runs; so `--help` is fast and loads no torch. Settings come from the
defaults of the config classes, then the TOML file, then dotted options (`--model.num-layers 4`).
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .commands.arguments import (
    DedupArguments,
    DemoArguments,
    InitArguments,
    InspectArguments,
    MergeArguments,
    PreprocessArguments,
    RepairArguments,
    ReportArguments,
    SplitArguments,
    StatusArguments,
    StopWordsArguments,
    TokenizeArguments,
    VerifyArguments,
)
from .commands.classifying import ClassifyArguments, classify
from .commands.training import chat, evaluate, export, finetune, generate, pretrain
from .commands.training_arguments import (
    ChatArguments,
    EvaluateArguments,
    ExportArguments,
    FinetuneArguments,
    GenerateArguments,
    PretrainArguments,
)
from .config import ConfigError, RunConfig, build, read_config, to_toml
from .pipeline.config import PreprocessConfig, SourceConfig
from .trainer.config import FINETUNING, PretrainConfig


def preprocess(arguments: PreprocessArguments) -> None:
    """Run `gristmill preprocess`."""
    from .commands.preprocessing import preprocess as run

    run(arguments)


def status(arguments: StatusArguments) -> None:
    """Run `gristmill status`."""
    from .pipeline.run_status import show_status

    sys.exit(show_status(Path(arguments.run), watch=arguments.watch))


def tokenize(arguments: TokenizeArguments) -> None:
    """Run `gristmill tokenize`."""
    from .pipeline import tokenize_files

    if not arguments.inputs:
        raise ConfigError(
            "nothing to tokenize: name files, before the options (gristmill tokenize a.jsonl "
            "--tokenizer T --output PREFIX)"
        )
    tokenize_files(
        arguments.inputs,
        arguments.output,
        arguments.tokenizer,
        json_keys=arguments.json_keys,
        append_eod=arguments.append_eod,
        eod=arguments.eod,
        prepend_bos=arguments.prepend_bos,
        bos=arguments.bos,
        add_special_tokens=arguments.add_special_tokens,
        special_strings=arguments.special_strings,
        workers=arguments.workers,
        overwrite=arguments.overwrite,
    )


def dedup(arguments: DedupArguments) -> None:
    """Run `gristmill dedup`."""
    from .pipeline import dedup_files

    if not arguments.inputs:
        raise ConfigError(
            "nothing to dedup: name files, before the options (gristmill dedup a.jsonl "
            "b.parquet --output DIR)"
        )
    dedup_files(
        arguments.inputs,
        Path(arguments.output),
        text_key=arguments.text_key,
        id_key=arguments.id_key,
        language=arguments.language,
        columns=arguments.columns,
        clean=arguments.clean,
        dedup=arguments.dedup,
        workers=arguments.workers,
        check_space=arguments.check_space,
    )


def stop_words(arguments: StopWordsArguments) -> None:
    """Run `gristmill stop-words`."""
    from .pipeline.stop_words import stop_words_of

    sys.stdout.write(stop_words_of(**vars(arguments)))


def report(arguments: ReportArguments) -> None:
    """Run `gristmill report`."""
    from .pipeline import make_pages

    for path in make_pages(Path(arguments.run), workers=arguments.workers):
        sys.stdout.write(f"{path}\n")


def inspect(arguments: InspectArguments) -> None:
    """Run `gristmill inspect`."""
    from .commands.inspection import answer

    sys.stdout.write(answer(arguments).rstrip() + "\n")


def merge(arguments: MergeArguments) -> None:
    """Run `gristmill merge`."""
    from .commands.maintenance import merge as run

    sys.stdout.write(run(arguments))


def split(arguments: SplitArguments) -> None:
    """Run `gristmill split`."""
    from .commands.maintenance import split as run

    sys.stdout.write(run(arguments))


def verify(arguments: VerifyArguments) -> None:
    """Run `gristmill verify`."""
    from .commands.maintenance import verify as run

    text, is_good = run(arguments)
    sys.stdout.write(text)
    if not is_good:
        sys.exit(1)


def repair(arguments: RepairArguments) -> None:
    """Run `gristmill repair`."""
    from .commands.maintenance import repair as run

    sys.stdout.write(run(arguments))


def init(arguments: InitArguments) -> None:
    """Run `gristmill init`."""
    if arguments.training == "finetune":
        data = PreprocessConfig(kind="chat", sources=(SourceConfig(path="chats/*.jsonl.zst"),))
        training = FINETUNING
    else:
        data = PreprocessConfig(sources=(SourceConfig(path="texts/{language}/*.jsonl.zst"),))
        training = PretrainConfig()
    sys.stdout.write(
        f"# gristmill preprocess THIS.toml, then gristmill {arguments.training} THIS.toml\n"
        "# Every setting with its default; delete what you do not change.\n\n"
        + to_toml({"run": RunConfig(), "preprocess": data, arguments.training: training})
    )


def demo(arguments: DemoArguments) -> None:
    """Run `gristmill demo`."""
    from .pipeline.demo import fetch_demo_corpus

    report = fetch_demo_corpus(
        Path(arguments.output),
        offline=arguments.offline,
        pip_arguments=tuple(shlex.split(arguments.pip_args)),
    )
    sys.stdout.write(report.summary() + "\n")


COMMANDS: dict[str, tuple[type[Any], Any]] = {
    "preprocess": (PreprocessArguments, preprocess),
    "status": (StatusArguments, status),
    "pretrain": (PretrainArguments, pretrain),
    "finetune": (FinetuneArguments, finetune),
    "generate": (GenerateArguments, generate),
    "chat": (ChatArguments, chat),
    "evaluate": (EvaluateArguments, evaluate),
    "classify": (ClassifyArguments, classify),
    "export": (ExportArguments, export),
    "inspect": (InspectArguments, inspect),
    "report": (ReportArguments, report),
    "tokenize": (TokenizeArguments, tokenize),
    "dedup": (DedupArguments, dedup),
    "stop-words": (StopWordsArguments, stop_words),
    "merge": (MergeArguments, merge),
    "split": (SplitArguments, split),
    "verify": (VerifyArguments, verify),
    "repair": (RepairArguments, repair),
    "init": (InitArguments, init),
    "demo": (DemoArguments, demo),
}
"""Command name -> its arguments and its function, in the order of `gristmill --help`."""


CONFIGS: dict[str, Any] = {
    "preprocess": PreprocessConfig(),
    "pretrain": PretrainConfig(),
    "finetune": FINETUNING,
}
"""Command that takes a config file -> what its section is where the file says nothing."""


def parse(command: str, words: Sequence[str]) -> Any:
    """Return the arguments object of `command` for the words after it (config file included)."""
    import tyro

    kind, _ = COMMANDS[command]
    default = kind() if command in CONFIGS else None
    if default is not None:
        files = [word for word in words if word.endswith(".toml") and not word.startswith("-")]
        if files:
            default = _from_file(kind, command, files[0])
        elif command == "preprocess":
            default = _from_inputs(words, default)
    arguments = tyro.cli(kind, prog=f"gristmill {command}", args=list(words), default=default)
    return arguments if default is None else _settle_inputs(command, arguments)


def _settle_inputs(command: str, arguments: Any) -> Any:
    """Refuse inputs that nothing would read, and take files that stand after the options."""
    configs = [word for word in arguments.inputs if word.endswith(".toml")]
    others = [word for word in arguments.inputs if not word.endswith(".toml")]
    if len(configs) > 1:
        raise ConfigError(f"one config file at a time; given: {', '.join(configs)}")
    if others and command != "preprocess":
        raise ConfigError(f"{others[0]} is not a config file: its name must end in .toml")
    if others and configs:
        raise ConfigError(
            f"{configs[0]} says what is read, so {', '.join(others)} would not be: add it there as "
            "[[preprocess.sources]], or give files without a config file"
        )
    if others and not arguments.config.sources:
        return _from_inputs(others, arguments)
    return arguments


def _from_file(kind: type[Any], command: str, path: str) -> Any:
    tables = read_config(path)
    default = CONFIGS[command]
    where = f"{path} [{command}]"
    return kind(
        inputs=(path,),
        run=build(RunConfig, tables.get("run", {}), f"{path} [run]"),
        config=build(type(default), tables.get(command, {}), where, default),
    )


def _from_inputs(words: Sequence[str], default: PreprocessArguments) -> PreprocessArguments:
    """Turn the leading words that are no options into one source."""
    paths = tuple(itertools.takewhile(lambda word: not word.startswith("-"), words))
    if not paths:
        return default
    config = dataclasses.replace(default.config, sources=(SourceConfig(path=paths),))
    return dataclasses.replace(default, config=config)


def overview() -> str:
    """Return the text of `gristmill --help`: each command with the first line of its class."""
    lines = [
        "usage: gristmill COMMAND ...",
        "",
        "Multilingual text in, token files and trained models out.",
        "",
    ]
    for name, (kind, _) in COMMANDS.items():
        lines.append(f"  {name:<11} {(kind.__doc__ or '').splitlines()[0]}")
    lines += ["", "gristmill COMMAND --help lists the options of one command."]
    return "\n".join(lines) + "\n"


def main(words: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 0, 1 (an error that the user can mend), 2 (usage), or 130
    and 143 after Ctrl-C and SIGTERM. (`preprocess` has 3 and 75 too: docs/scaling.md)
    """
    words = list(sys.argv[1:] if words is None else words)
    if not words or words[0] in ("-h", "--help", "help"):
        sys.stdout.write(overview())
        return
    if words[0] == "--version":
        from . import __version__

        sys.stdout.write(f"gristmill {__version__}\n")
        return
    if words[0] not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(words[0], COMMANDS, n=1)
        hint = f"; did you mean `{near[0]}`?" if near else ""
        sys.stderr.write(f"gristmill: there is no command `{words[0]}`{hint}\n\n{overview()}")
        sys.exit(2)
    logging.basicConfig(level=logging.INFO, format="gristmill: %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        arguments = parse(words[0], words[1:])
        COMMANDS[words[0]][1](arguments)
    except KeyboardInterrupt as stop:
        sys.stderr.write("gristmill: interrupted; run the same command again to go on\n")
        sys.exit(143 if isinstance(stop, Terminated) else 130)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:
        if os.environ.get("GRISTMILL_DEBUG") or not is_users(error):
            raise
        sys.stderr.write(f"gristmill: error: {error}\n")
        sys.exit(1)


class Terminated(KeyboardInterrupt):
    """A SIGTERM: ends a command as Ctrl-C does, with workers stopped and temporary files gone."""


def _terminate(number: int, frame: object) -> None:
    raise Terminated


def is_users(error: Exception) -> bool:
    """Return whether the message of `error` was written for the user (no traceback needed)."""
    from .pipeline.executors import UnitError, WorkerDiedError

    return isinstance(error, ValueError | OSError | UnitError | WorkerDiedError)


if __name__ == "__main__":
    main()
