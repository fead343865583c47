"""What the trainer's commands can be told: one dataclass a command, as in `arguments.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ..config import RunConfig
from ..trainer.config import FINETUNING, PretrainConfig


@dataclass(frozen=True, kw_only=True)
class PretrainArguments:
    """Token files in, a trained model out. Starts its own processes, one a rank.

    Run the same command again after an interruption: it goes on from the last checkpoint.
    """

    inputs: Positional[tuple[str, ...]] = ()
    """One config file."""
    run: Annotated[RunConfig, arg(name="")] = field(default_factory=RunConfig)
    plan: bool = False
    """Say what would be done, with sizes, memory and time, and do nothing."""
    config: Annotated[PretrainConfig, arg(name="")] = field(default_factory=PretrainConfig)


@dataclass(frozen=True, kw_only=True)
class FinetuneArguments:
    """Conversations or pairs in (preprocess with kind = "chat" or "pairs"), a tuned model out.

    It is the same training as pretrain, from a section [finetune] with the same settings and other
    defaults; training.init_from names the model to start from. Run the same command again after an
    interruption: it goes on from the last checkpoint.
    """

    inputs: Positional[tuple[str, ...]] = ()
    """One config file."""
    run: Annotated[RunConfig, arg(name="")] = field(default_factory=RunConfig)
    plan: bool = False
    """Say what would be done, with sizes, memory and time, and do nothing."""
    config: Annotated[PretrainConfig, arg(name="")] = FINETUNING


@dataclass(frozen=True, kw_only=True)
class SamplingArguments:
    """How tokens are chosen."""

    temperature: float = 0.8
    """0: always the most likely token."""
    top_k: int = 50
    """Choose among the k most likely tokens; 0: all."""
    top_p: float = 1.0
    """Choose among the most likely tokens that hold this share of probability."""
    min_p: float = 0.0
    """Choose among tokens of at least this share of the most likely one's probability."""
    seed: int = 0
    """Seed of the choice: the same seed gives the same text; prompt i takes seed + i."""


@dataclass(frozen=True, kw_only=True)
class GenerateArguments:
    """Continue prompts, or answer conversations, with a trained model.

    Run the same command again after an interruption: it goes on behind the last whole batch.
    """

    checkpoint: Positional[str]
    """A checkpoint folder, or the output folder of a run (its newest checkpoint is taken)."""
    prompt: tuple[str, ...] = ("",)
    """Text to continue, or several; "" starts a new document."""
    input: str = ""
    """File of prompts instead of --prompt: one on each line, or .jsonl with {"prompt": "..."} or
    {"messages": [{"role": "user", "content": "..."}]}, which the model answers."""
    output: str = ""
    """File to write as .jsonl, the rows of the input with a "text" each; empty: print the texts."""
    max_tokens: int = 100
    """Tokens to generate at most; generation ends earlier at the end of a document or answer."""
    sampling: Annotated[SamplingArguments, arg(name="")] = field(default_factory=SamplingArguments)
    batch_size: int = 8
    """Prompts continued at once; changes no text."""
    tensor_parallel_size: int = 1
    """Ranks that share the model, started on this machine."""


@dataclass(frozen=True, kw_only=True)
class ChatArguments:
    """Talk with a model that was fine-tuned on conversations.

    Answers appear word by word; Ctrl-C ends one, Ctrl-D the talk. /reset forgets what was said,
    /system TEXT sets what stands before it.
    """

    checkpoint: Positional[str]
    """A checkpoint folder, or the output folder of a run (its newest checkpoint is taken)."""
    system: str = ""
    """System turn before the talk; empty: none."""
    max_tokens: int = 512
    """Tokens of an answer at most."""
    sampling: Annotated[SamplingArguments, arg(name="")] = field(default_factory=SamplingArguments)


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments:
    """Score fine-tuned models on the held-out conversations, side by side.

    Held-out loss, and of generated answers chrF and BLEU (sacrebleu), ROUGE-L (rouge-score) and
    exact match. Name the model before and the model after fine-tuning to compare them.
    """

    checkpoints: Positional[tuple[str, ...]]
    """Checkpoint folders, or output folders of runs; their tokenizer is that of the data, or the
    data's without the tokens of the chat template."""
    data: str = ""
    """Data folder that `gristmill preprocess` wrote with kind = "chat" or "pairs"; empty: that of
    the last model."""
    output: str = ""
    """Folder for evaluation.json, evaluation.html and the answers; empty: `evaluation` inside the
    last run."""
    max_examples: int = 200
    """Held-out conversations of each task and source that are answered, spread evenly; 0: all."""
    max_tokens: int = 128
    """Tokens of an answer at most."""
    temperature: float = 0.0
    """0: always the most likely token."""
    batch_size: int = 16
    """Conversations answered at once; changes no answer."""
    seed: int = 0
    """Of the choice of tokens where temperature is above 0."""


@dataclass(frozen=True, kw_only=True)
class ExportArguments:
    """Write a trained model as a Hugging Face folder: config, safetensors, tokenizer, card."""

    checkpoint: Positional[str]
    """A checkpoint folder, or the output folder of a run (its newest checkpoint is taken)."""
    output: str
    """Folder to write; it must not exist yet, or be empty."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the weights; auto: bfloat16 if that was trained in, else float32."""
    adapter: bool = False
    """Of a low-rank fine-tuning: write the low-rank matrices alone, as PEFT reads them, instead of
    merging them into the model."""
