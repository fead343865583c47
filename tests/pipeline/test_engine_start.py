"""The first run of an engine: nothing is compiled yet, or nothing can be kept."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import tokenizers

from gristmill.pipeline.executors import count_workers

PROGRAM = """
import sys
from gristmill.kernels.tokenizer.wordpiece import encode_wordpiece
from gristmill.pipeline.tokenizer import Tokenizer
tokenizer = Tokenizer(sys.argv[1])
print(tokenizer.encode_batch(["some text"])[0].tolist())
print("compiled", sum(encode_wordpiece.stats.cache_misses.values()))
"""
pytestmark = pytest.mark.slow


@pytest.fixture
def file(tmp_path):
    words = {"[UNK]": 0, "some": 1, "te": 2, "##xt": 3}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(words, unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def start_run(file, cache):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(file)],
        env={**os.environ, "GRISTMILL_CACHE_DIR": str(cache), "NUMBA_DISABLE_JIT": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_first_runs_at_once_both_work_and_leave_a_cache_for_the_third(file, tmp_path):
    runs = [start_run(file, tmp_path / "cache") for _ in range(2)]
    results = [run.communicate() for run in runs]

    for run, (printed, said) in zip(runs, results, strict=True):
        assert run.returncode == 0, said
        ids, compiled = printed.splitlines()
        assert ids == "[1, 2, 3]"
        # A process beside it has compiled the largest kernel, where there is a CPU for that.
        assert compiled == f"compiled {int(count_workers() == 1)}"
        assert said.count("compiling the tokenizer kernels, once on this machine") == 1
    third = start_run(file, tmp_path / "cache")
    printed, said = third.communicate()
    assert printed.splitlines() == ["[1, 2, 3]", "compiled 0"]
    assert "compiling" not in said


def test_an_installation_where_nothing_can_be_written_encodes_uncached(file, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("a file where a folder is wanted")
    run = start_run(file, blocked)
    printed, said = run.communicate()

    assert run.returncode == 0, said
    assert printed.splitlines()[0] == "[1, 2, 3]"
    assert said.count("compiled kernels are not cached") >= 1
