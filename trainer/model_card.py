"""What a checkpoint says about itself in, the README.md of an exported model out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .checkpoint import Facts
from .hugging_face_config import family

_CONTINUES = {
    False: "A language model pretrained with gristmill. It continues texts; it was not taught to "
    "follow instructions, and nobody has checked what it says.",
    True: "A language model fine-tuned on conversations with gristmill. Nobody has checked what it "
    "says.",
}
_FILLS_IN = (
    "An encoder pretrained with gristmill to fill in masked tokens. It is meant to be fine-tuned, "
    "for classification say."
)
_BEGINNING = {
    False: "A document begins after the end-of-document token: `generate` does so when it is given "
    "no prompt, and a prompt that begins a text should have it in front.",
    True: "Prompts are made of messages by the chat template (`tokenizer.apply_chat_template(..., "
    "add_generation_prompt=True)`); generation ends at the ids of generation_config.json.",
}


def model_card(
    facts: Facts, num_parameters: int, report: Mapping[str, Any], *, is_chat: bool = False
) -> str:
    """Return Markdown: what the model is, what it was trained on, how it scores.

    Args:
        report: content of pretrain_report.json of this very step; empty if there is none.
        is_chat: whether it was trained on conversations.
    """
    config, model = facts.config, facts.config.model
    groups = sorted(facts.data["datasets"])
    rows = {
        "family": f"{family(model)}, {num_parameters:,} parameters",
        "size": f"{model.num_layers} layers, hidden size {model.hidden_size}, {model.num_heads} "
        f"heads ({model.num_kv_heads} key/value), feed-forward {model.ffn_size}",
        "vocabulary": f"{facts.vocab_size:,} tokens",
        "context": f"{config.data.sequence_length:,} tokens in training",
        "trained": f"{facts.step:,} of {config.training.num_steps:,} steps, "
        f"{facts.consumed_samples:,} samples, {config.training.precision}",
        "started from": config.training.init_from or "random weights",
    }
    lines = [
        "---",
        "library_name: transformers",
        f"pipeline_tag: {'text-generation' if model.causal else 'fill-mask'}",
        "tags:",
        "- gristmill",
        "---",
        "",
        "# Model card",
        "",
        _CONTINUES[is_chat] if model.causal else _FILLS_IN,
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
        "",
        "## Data",
        "",
        f"{len(groups)} datasets: {', '.join(groups)}. Their licences and what was left out stand "
        "in the data card of the token files.",
        "",
    ]
    if model.causal:
        lines.append(_BEGINNING[is_chat])
    lines += _scores(report)
    return "\n".join(lines) + "\n"


def _scores(report: Mapping[str, Any]) -> list[str]:
    groups: Mapping[str, Mapping[str, Any]] = report.get("languages") or {}
    if not groups:
        return []
    lines = ["", "## Validation", "", "| dataset | loss (nats a token) | bits per byte |"]
    lines.append("|---|---|---|")
    for name, score in {**groups, "total": report.get("total") or {}}.items():
        loss, bits = score.get("loss"), score.get("bits_per_byte")
        if loss is not None:
            lines.append(f"| {name} | {loss:.4f} | {'' if bits is None else f'{bits:.4f}'} |")
    return lines
