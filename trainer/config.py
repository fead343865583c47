"""What a user can set about a training: plain typed values in, nothing done here.

One frozen dataclass a section, in the order of the training loop. The string under each field is
its documentation: `gristmill pretrain --help` and `gristmill init` print it. A checkpoint keeps
its config as JSON (`to_dict`, `from_dict`), so that it can be opened without any config file.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from .config_lora import LoraConfig
from .config_masking import MaskingConfig
from .config_model import ModelConfig

Precision = Literal["auto", "float32", "bfloat16", "float64"]
Compile = Literal["auto", "on", "off"]
ActivationCheckpointing = Literal["none", "selective", "full"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseConfig:
    """A part of the training with its own mix; what is not set is as in `data`."""

    until_tokens: int = 0
    """Tokens consumed in all when the phase ends, rounded up to whole steps; 0 (last phase
    only): it lasts to the end."""
    sequence_length: int = 0
    """Tokens of one sample, each length a multiple of the shorter ones; 0: as in `data`."""
    alpha: float = -1.0
    """Temperature of this phase; -1: as in `data`."""
    weights: dict[str, float] = field(default_factory=dict)
    """Explicit share of each group in this phase, 0 for none; empty: as in `data`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Which token files are read, and how much of each."""

    path: str = ""
    """Folder with train/ and validation/ prefixes; empty: `data` inside the run's output."""
    sequence_length: int = 512
    """Tokens of one sample."""
    order: Literal["stable", "best_fit", "megatron"] = "stable"
    """stable: windows of the joined documents in a computed random order; best_fit: whole
    documents packed into samples, padded, none cut unless it is longer than a sample; megatron:
    the samples of Megatron's GPTDataset and BlendedDataset in their order, for `--train-data-path`
    with the groups by name and their `weights`, `--seed` = training.seed (there 1234) and as many
    train samples. It depends on the length of the whole training: num_steps cannot change."""
    documents: Literal["auto", "joined", "separate"] = "auto"
    """joined: attention, positions and loss go on across the documents of a sample; separate: each
    document is a text of its own (its first token is no label, also in validation). auto: joined,
    but separate with best_fit."""
    alpha: float = 0.7
    """Temperature of the blend: a language's share is its tokens to the power alpha, normalized;
    groups of one language share it by their tokens. 1: by size, 0: every language alike. Groups
    whose manifests ask for repetitions (preprocess.rehydration) count their tokens so often."""
    weights: dict[str, float] = field(default_factory=dict)
    """Explicit share of each group (`eng_Latn = 2.0`) instead of alpha; names every group, 0
    leaves one out."""
    weights_from_manifests: bool = False
    """Take the shares that the manifests of the groups ask for, instead of alpha."""
    max_epochs: float = 0.0
    """Largest number of times that a group is given; then the others go on without it. 0: any."""
    max_epochs_of: dict[str, float] = field(default_factory=dict)
    """The same for single groups (`cym_Latn = 4.0`)."""
    phases: tuple[PhaseConfig, ...] = ()
    """`[[pretrain.data.phases]]`: parts of the training with other weights or sequence lengths."""
    block_length: int = 0
    """Tokens of the blocks that the order of a group permutes, a multiple of every sequence
    length; 0: the longest one. Set it where a phase of longer samples may be added later."""
    allow_changed_blend: bool = False
    """Resume with other groups, weights or phases than the checkpoint's: each group goes on where
    it was. Groups with changed tokens are refused anyway."""
    validation: dict[str, str] = field(default_factory=dict)
    """Further validation sets: a name, and a folder of prefixes that is scored as NAME/GROUP."""
    vocab_size: int = 0
    """Number of ids, for datasets without manifest; 0: from the manifests."""
    eod_id: int = -1
    """Id that ends a document, for datasets without manifest; -1: from the manifests."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """The update rule, decoupled weight decay on matrices, and gradient clipping."""

    kind: Literal["adamw", "muon"] = "adamw"
    """adamw: for every parameter; muon: the matrices of the blocks move by their orthogonalized
    momentum, the others (embedding, output layer, norms, biases) by AdamW."""
    learning_rate: float = 1e-3
    """Peak learning rate; Muon's steps are scaled to the size of AdamW's, so it serves both."""
    muon_momentum: float = 0.95
    """Decay of Muon's running sum of gradients (Nesterov)."""
    beta1: float = 0.9
    """Decay of the gradient's running mean."""
    beta2: float = 0.95
    """Decay of the squared gradient's running mean."""
    epsilon: float = 1e-8
    """Added to the denominator."""
    weight_decay: float = 0.1
    """Applied to matrices (embedding included), not to norm weights."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this global norm; 0: no clipping."""
    spike_factor: float = 10.0
    """A step whose gradient's norm is above this many times the median of the last 64 taken
    steps is skipped (once 32 are known); 0: never. Steps whose loss or norm is not a finite number
    are always skipped."""
    max_skipped_steps: int = 10
    """Stop with an error after so many skipped steps in a row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """Learning rate as a function of the step."""

    kind: Literal["cosine", "wsd", "constant"] = "cosine"
    """cosine: to the minimum at the end; wsd: constant, then linearly to the minimum over the
    last `decay_fraction`; constant: no decay. All after warm-up."""
    warmup_steps: int = 50
    """Steps over which the rate rises linearly from zero to its peak."""
    decay_steps: int = 0
    """Step at which the decay ends; 0: training.num_steps."""
    decay_fraction: float = 0.2
    """wsd: share of all steps that the decay takes."""
    minimum_ratio: float = 0.1
    """Lowest learning rate as a share of the peak."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """How long, how much at once, and in which number format."""

    num_steps: int = 1_000
    """Optimizer steps of the whole training; 0: from num_epochs."""
    num_epochs: float = 0.0
    """Length of the training in samples: so many times those of all train groups, rounded up to
    whole steps (with data.alpha = 1 every group is given so often); 0: num_steps says it."""
    global_batch_size: int = 32
    """Samples of one optimizer step over all ranks."""
    micro_batch_size: int = 8
    """Samples that one rank computes at once; gradients of the rest are accumulated."""
    initial_batch_size: int = 0
    """Batch-size warm-up: samples of the first steps, a divisor of global_batch_size, which is
    reached in equal increments of this size; 0: no warm-up. The order of samples stays the same."""
    batch_warmup_tokens: int = 0
    """Tokens over which the batch grows from initial_batch_size to global_batch_size."""
    init_from: str = ""
    """Model whose weights the training starts from, and which says what the model is: the output
    folder of a training (its newest checkpoint), a checkpoint, or a Hugging Face folder (Llama,
    Qwen3, GPT-2, Mixtral, Qwen3-MoE, dots1, BERT, ModernBERT). Empty: start from random weights."""
    seed: int = 0
    """Of the initial weights and of the sample order."""
    precision: Precision = "auto"
    """Number format of the computation. auto: bfloat16 on GPUs that have it, else float32.
    bfloat16 keeps weights and optimizer states in float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda where there is one."""
    deterministic: bool = True
    """Use deterministic algorithms only, so that a resumed run repeats bit for bit (costs some
    speed on GPUs, nothing on CPUs)."""
    compile: Compile = "auto"
    """Compile the blocks with torch.compile. auto: on GPUs. It takes about a minute at the start;
    where no compiler is found it is skipped with one line."""
    activation_checkpointing: ActivationCheckpointing = "none"
    """Less memory for more work. selective: norms and activation functions are computed again in
    the backward pass; full: whole blocks are (a third more work). Changes no result."""
    loss_chunk_tokens: int = 0
    """Tokens whose logits exist at once; 0: as many as suit the device."""
    check_memory: bool = True
    """Refuse to start where the estimate of `--plan` is above the memory there is."""
    collect_garbage_every: int = 100
    """Steps between collections of Python's garbage, all ranks in the same step, instead of
    whenever Python likes; 0: leave it to Python."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParallelConfig:
    """How the ranks share the work; changes no result beyond rounding."""

    tensor_parallel_size: int = 1
    """Ranks that share every matrix of one copy of the model."""
    data_parallel_size: int = 0
    """Copies of the model; 0: as many as the GPUs (or, under torchrun, the ranks) allow, 1 on a
    CPU."""
    expert_parallel_size: int = 1
    """Data-parallel ranks that share the experts: each holds an equal part of them and gets their
    tokens of all. Divides data_parallel_size and model.num_experts."""
    sequence_parallel: bool = False
    """Tensor-parallel ranks also share norms and the residual stream, each a part of the sequence:
    less memory for activations, the same amount of communication."""
    shard: Literal["none", "full", "hybrid"] = "none"
    """none: every data-parallel rank holds weights, gradients and optimizer states whole; full: it
    holds an equal part of each and fetches the weights of one block at a time (FSDP); hybrid: the
    same among shard_size neighbours (the GPUs of a machine, say), whole among such groups."""
    shard_size: int = 0
    """shard = "hybrid": data-parallel ranks that share one copy; divides data_parallel_size."""
    threads_per_rank: int = 0
    """CPU threads of each rank; 0: usable cores divided by the ranks of this machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointConfig:
    """When the state of training is saved (at the end and on SIGTERM it always is)."""

    every_steps: int = 200
    """Save after every so many steps; 0: only at the end."""
    keep_last: int = 2
    """Older checkpoints than the last so many are removed; 0: all are kept."""
    asynchronous: bool = True
    """Copy the state in memory and write it while the training goes on (the last one is waited
    for). false: the training waits for every checkpoint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """When and how far the validation sets are scored."""

    enabled: bool = True
    """false: train without validation sets."""
    every_steps: int = 0
    """Score every so many steps; 0: only at the end."""
    max_windows: int = 16
    """Windows of each validation group scored during training; 0: all."""
    final_max_windows: int = 0
    """Windows of each validation group scored at the end; 0: all."""
    batch_size: int = 0
    """Windows computed at once by one rank; 0: training.micro_batch_size."""
    unigram_baseline: bool = True
    """Score the validation sets also by the frequencies of all training tokens (reads all of
    them once, at the end)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LogConfig:
    """What is written down about the steps."""

    every_steps: int = 1
    """Log a line every so many steps."""
    tensorboard: bool = True
    """Write TensorBoard scalars beside the JSON lines."""
    wandb: str = ""
    """Name of a Weights & Biases project that gets the scalars too (pip install wandb); empty:
    none."""
    profile_steps: int = 0
    """Record so many steps with torch's profiler, from the fourth step of this start on, as a
    Chrome trace of each rank in OUTPUT/profile; 0: none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateConfig:
    """The sampled continuation that ends a training run."""

    prompts: tuple[str, ...] = ()
    """Texts to continue; empty: the beginnings of a few validation documents."""
    max_tokens: int = 48
    """Tokens of each continuation; 0: no continuation."""
    temperature: float = 0.8
    """Flattens (> 1) or sharpens (< 1) the distribution; 0: always the likeliest token."""
    top_k: int = 0
    """Draw from the k likeliest tokens only; 0: from all."""
    top_p: float = 0.9
    """Draw from the smallest set of tokens that holds this much probability."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainConfig:
    """Everything about one pretraining run except where it writes."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Low-rank adaptation."""
    data: DataConfig = field(default_factory=DataConfig)
    """The token files."""
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    """The masked tokens of an encoder."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """The update rule."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """The learning rate over time."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Steps, batch, number format."""
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    """The layout of ranks."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Saving."""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    """Scoring."""
    log: LogConfig = field(default_factory=LogConfig)
    """Logging."""
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    """Sampling."""


FINETUNING = PretrainConfig(
    data=DataConfig(order="best_fit", alpha=1.0),
    optimizer=OptimizerConfig(learning_rate=1e-4, weight_decay=0.0),
    schedule=ScheduleConfig(warmup_steps=20),
    training=TrainingConfig(num_steps=0, num_epochs=3.0),
    evaluate=EvaluateConfig(unigram_baseline=False),
    generate=GenerateConfig(max_tokens=0),
)
"""What [finetune] is where a config file says nothing: whole documents in each sample, gentle
steps, and no continuation at the end (`gristmill evaluate` shows answers)."""


def longest_sequence(data: DataConfig) -> int:
    """Return the tokens of the longest sample of any phase."""
    return max(data.sequence_length, *(phase.sequence_length for phase in data.phases), 0)


Config = TypeVar("Config")


def to_dict(config: Any) -> dict[str, Any]:
    """Return a config dataclass as plain values that JSON can hold."""
    return dataclasses.asdict(config)


def from_dict(kind: type[Config], values: dict[str, Any]) -> Config:
    """Return the config dataclass that `to_dict` turned into `values`.

    Raises:
        ValueError: a key that this version does not know.
    """
    hints = typing.get_type_hints(kind)
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            raise ValueError(
                f"{kind.__name__} has no field `{key}`: the config was written by another "
                "version of gristmill; use that version, or start in a new output folder"
            )
        inner = hints[key]
        (item,) = typing.get_args(inner)[:1] or (None,)
        if dataclasses.is_dataclass(inner):
            value = from_dict(typing.cast(type, inner), value)
        elif isinstance(value, list):
            whole = dataclasses.is_dataclass(item)
            value = tuple(from_dict(typing.cast(type, item), v) if whole else v for v in value)
        arguments[key] = value
    return kind(**arguments)
