"""What fine-tuning does to a small pretrained model: scores before and after, full and low-rank.

    python benchmarks/finetune.py --base RUN --corpora ../shared/corpora/finetune --output FOLDER

RUN is the output folder of a pretraining with its tokenizer. One data folder holds all tasks
(translation, question answering, chat); it is trained on twice, and `gristmill evaluate` puts the
three models in one table. At the end a training is killed in its middle and taken up again: its
checkpoint must be that of one in one go, bit for bit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

CHAT = """
[run]
output = "{output}"
workers = 2
[preprocess]
kind = "chat"
[preprocess.chat]
max_tokens = {length}
[preprocess.tokenizer]
path = "{tokenizer}"
[preprocess.pack]
group_by = ["source"]
validation_fraction = 0.02
[[preprocess.sources]]
path = "{corpora}/translation_lzh_zh.jsonl.zst"
name = "lzh-zho"
task = {{ kind = "translate" }}
[[preprocess.sources]]
path = "{corpora}/qa_drcd_devtest.jsonl.zst"
name = "drcd"
task = {{ kind = "answer", held_out_by = "context" }}
[[preprocess.sources]]
path = "{corpora}/chat_ko_songys.jsonl.zst"
name = "songys"
"""
FINETUNE = """
[run]
output = "{output}"
[finetune.data]
path = "{data}"
sequence_length = {length}
alpha = 0.5
[finetune.training]
init_from = "{base}"
num_steps = {steps}
num_epochs = 0
global_batch_size = 8
micro_batch_size = 4
seed = 1
[finetune.optimizer]
learning_rate = {rate}
[finetune.schedule]
warmup_steps = 10
[finetune.parallel]
threads_per_rank = 1
[finetune.lora]
rank = {rank}
[finetune.checkpoint]
every_steps = {every}
[finetune.evaluate]
enabled = false
[finetune.log]
every_steps = 10
tensorboard = false
"""
CLI = (sys.executable, "-P", "-m", "gristmill.cli")
METHODS = {"full": (0, 1e-3), "low-rank": (16, 3e-3)}
"""Name -> rank (0: all weights) and peak learning rate."""


def run(*words: object) -> float:
    """Run a command of gristmill and return its seconds."""
    begun = time.monotonic()
    subprocess.run([*CLI, *map(str, words)], check=True)
    return time.monotonic() - begun


def write(path: Path, template: str, **values: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(template.format(**values))
    return path


def digest(run_folder: Path, step: int) -> str:
    """Return a hash of the tensors of a checkpoint, as they are read back."""
    import torch
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load

    reader = FileSystemReader(run_folder / f"checkpoints/step_{step:08d}/state")
    known = reader.read_metadata().state_dict_metadata
    tensors = {name: torch.empty(facts.size) for name, facts in known.items()}  # type: ignore[union-attr]
    load(tensors, storage_reader=reader, no_dist=True)
    found = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        found.update(name.encode() + tensors[name].numpy().tobytes())
    return found.hexdigest()


def interrupted(config: Path, output: Path, after: int) -> None:
    """Start a training and kill it without warning behind its checkpoint of `after` steps."""
    process = subprocess.Popen([*CLI, "finetune", str(config)], stderr=subprocess.DEVNULL)
    facts = output / f"checkpoints/step_{after:08d}/checkpoint.json"
    while not facts.is_file() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--corpora", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--examples", type=int, default=40)
    arguments = parser.parse_args()
    os.environ["PYTHONSAFEPATH"] = "1"
    output, base = arguments.output.resolve(), arguments.base.resolve()
    saved = [base] if (base / "checkpoint.json").is_file() else sorted(base.glob("checkpoints/*"))
    tokenizer = saved[-1] / "tokenizer"
    data = write(
        output / "data.toml",
        CHAT,
        output=output / "chat",
        length=arguments.length,
        tokenizer=tokenizer,
        corpora=arguments.corpora.resolve(),
    )
    seconds = {"preprocess": run("preprocess", data)}
    common = {"data": output / "chat/data", "base": base, "length": arguments.length}
    configs = [
        write(
            output / f"{name}.toml",
            FINETUNE,
            output=output / name,
            rank=rank,
            rate=rate,
            steps=arguments.steps,
            every=0,
            **common,
        )
        for name, (rank, rate) in METHODS.items()
    ]
    begun = time.monotonic()  # both at once, a core each
    trainings = [subprocess.Popen([*CLI, "finetune", str(config)]) for config in configs]
    assert all(training.wait() == 0 for training in trainings)
    seconds["both trainings"] = time.monotonic() - begun
    models = [base, *(output / name for name in METHODS)]
    seconds["evaluate"] = run(
        "evaluate", *models, "--data", output / "chat/data", "--output", output / "evaluation",
        "--max-examples", arguments.examples, "--max-tokens", 64,
    )  # fmt: skip
    same = {}
    for name, (rank, rate) in METHODS.items():
        folders = [output / f"{name}-{kind}" for kind in ("whole", "killed")]
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
            config = write(
                folder / "config.toml",
                FINETUNE,
                output=folder,
                rank=rank,
                rate=rate,
                steps=4,
                every=2,
                **common,
            )
            if folder.name.endswith("killed"):
                interrupted(config, folder, 2)
            run("finetune", config)
        hashes = {digest(folder, 4) for folder in folders}
        same[name] = len(hashes) == 1
    summary = {"seconds": seconds, "killed_and_resumed_is_bitwise_equal": same}
    (output / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps(summary, indent=1))
    assert all(same.values())


if __name__ == "__main__":
    main()
