"""The command line: fast help, strict options, one clear line for every mistake."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from gristmill.cli import COMMANDS, main, parse
from gristmill.commands.arguments import PreprocessArguments
from gristmill.commands.training_arguments import FinetuneArguments, PretrainArguments
from gristmill.config import ConfigError


def gristmill(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "gristmill.cli", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


def test_help_names_every_command_without_loading_the_rooms() -> None:
    program = (
        "import sys; from gristmill.cli import main; main(['--help']); "
        "heavy = {'torch', 'numba', 'pyarrow', 'tokenizers', 'datasets'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    started = time.monotonic()

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 10  # far above what it takes, far below a torch import here
    for command in COMMANDS:
        assert f"\n  {command}" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_that_loads_no_torch(command: str) -> None:
    program = (
        "import sys\n"
        "from gristmill.cli import main\n"
        "try:\n"
        f"    main([{command!r}, '--help'])\n"
        "except SystemExit as end:\n"
        "    assert end.code in (0, None), end.code\n"
        "heavy = {'torch', 'numba', 'pyarrow', 'tokenizers', 'datasets'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert f"usage: gristmill {command}" in done.stdout


def test_files_become_a_source_and_options_override_it() -> None:
    arguments = parse(
        "preprocess", ["a.jsonl", "b", "--output", "out", "--dedup.num-bands", "4", "--plan"]
    )

    assert isinstance(arguments, PreprocessArguments)
    assert arguments.config.sources[0].path == ("a.jsonl", "b")
    assert arguments.config.dedup.num_bands == 4
    assert arguments.run.output == "out"
    assert arguments.plan


def test_tokenizing_nothing_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    done = gristmill("tokenize", "--tokenizer", "t", "--output", "out/x", cwd=tmp_path)

    assert done.returncode == 1
    assert "nothing to tokenize" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_training_that_was_stopped_does_not_end_with_success(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stopped = SimpleNamespace(finished=False)
    monkeypatch.setattr("gristmill.trainer.pretrain", lambda *_, **__: stopped, raising=False)

    with pytest.raises(SystemExit) as end:
        main(["pretrain", "--output", str(tmp_path)])

    assert end.value.code == 130


def test_files_may_stand_after_the_options() -> None:
    arguments = parse("preprocess", ["--output", "out", "a.jsonl", "b"])

    assert arguments.config.sources[0].path == ("a.jsonl", "b")


def test_files_beside_a_config_file_are_refused_not_ignored(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[[preprocess.sources]]\npath = 'a.jsonl'\n")

    with pytest.raises(ConfigError, match=r"b\.jsonl would not be"):
        parse("preprocess", [str(path), "b.jsonl"])


def test_options_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        "[run]\noutput = 'x'\n[pretrain.model]\nnum_layers = 3\nhidden_size = 64\n"
        "[preprocess.dedup]\nthreshold = 0.5\n"
    )

    arguments = parse("pretrain", [str(path), "--model.num-layers", "4"])

    assert isinstance(arguments, PretrainArguments)
    assert arguments.config.model.num_layers == 4
    assert arguments.config.model.hidden_size == 64
    assert arguments.run.output == "x"


def test_a_mistyped_option_is_answered_with_the_right_one() -> None:
    done = gristmill("preprocess", "x.jsonl", "--dedup.num-band", "4")

    assert done.returncode == 2
    assert "--dedup.num-bands" in done.stdout + done.stderr


def test_a_mistyped_command_is_answered_with_the_right_one() -> None:
    done = gristmill("preproces")

    assert done.returncode == 2
    assert "did you mean `preprocess`?" in done.stderr


def test_a_config_typo_is_one_line_with_a_suggestion(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[preprocess.dedup]\ntreshold = 0.5\n")

    done = gristmill("preprocess", "c.toml", cwd=tmp_path)

    assert done.returncode == 1
    assert done.stderr == (
        "gristmill: error: c.toml [preprocess], dedup: unknown key `treshold`; "
        "did you mean `threshold`?\n"
    )


def test_nothing_to_do_says_what_to_give() -> None:
    done = gristmill("preprocess")

    assert done.returncode == 1
    assert "nothing to preprocess: name files" in done.stderr


def test_a_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    done = gristmill("preprocess", "absent.jsonl", "--output", "out", cwd=tmp_path)

    assert done.returncode == 1
    assert "absent.jsonl" in done.stderr
    assert "Traceback" not in done.stderr


def test_init_prints_a_config_that_reads_back(tmp_path: Path) -> None:
    for training, default in (("pretrain", PretrainArguments()), ("finetune", FinetuneArguments())):
        done = gristmill("init", "--for", training)
        (tmp_path / "c.toml").write_text(done.stdout)

        assert done.returncode == 0
        assert "# " in done.stdout
        assert parse(training, [str(tmp_path / "c.toml")]).config == default.config
        kind = parse("preprocess", [str(tmp_path / "c.toml")]).config.kind
        assert kind == ("chat" if training == "finetune" else "text")
