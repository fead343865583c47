r"""Which pre-tokenizers the scanners reproduce: a tokenizer.json's steps in, `rules` for them out.

`rules` is what `kernels.tokenizer.scan` takes: a scheme and its flags. Expressions are recognised
by their text, never interpreted: any other one is for `tokenizers` itself.
"""

from __future__ import annotations

from typing import Any

from ...kernels.tokenizer import scan
from .. import cuts
from .unsupported import UnsupportedError

_TAIL = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_SUFFIX = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = r"[^\r\n\p{L}\p{N}]?"


def _cl100k(letters: str, digits: str, others: str) -> str:
    return f"{_SUFFIX}|{_CASED}{letters}+|{digits}| ?[^\\s{others}]+[\\r\\n]*{_TAIL}"


def _o200k(suffix: str, digits: str) -> str:
    return (
        f"{_CASED}{_UPPER}*{_LOWER}+{suffix}|{_CASED}{_UPPER}+{_LOWER}*{suffix}"
        rf"|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*{_TAIL}"
    )


_CL100K = scan.CL100K | scan.CONTRACTIONS
EXPRESSIONS: dict[str, int] = {
    _cl100k(r"\p{L}", r"\p{N}{1,3}", r"\p{L}\p{N}"): _CL100K,  # cl100k, Llama-3, GLM, OLMo
    _cl100k(r"\p{L}", r"\p{N}", r"\p{L}\p{N}"): _CL100K | scan.SINGLE_DIGITS,  # Qwen 2 and 3
    _cl100k(r"[\p{L}\p{M}]", r"\p{N}", r"\p{L}\p{M}\p{N}"): (  # Qwen 3.5
        _CL100K | scan.SINGLE_DIGITS | scan.MARKS
    ),
    cuts.OURS: scan.CL100K | scan.MARKS,
    _o200k(f"{_SUFFIX}?", r"\p{N}{1,3}"): scan.O200K | scan.CONTRACTIONS,  # o200k, gpt-oss
    _o200k("", r"\p{N}"): scan.O200K | scan.SINGLE_DIGITS,  # tekken
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": scan.GPT2,
}
"""Expressions that tile every text: isolating matches and dropping the rest is one thing."""


def find_rules(pre_tokenizer: dict[str, Any] | None) -> tuple[int, bool]:
    """Return (rules, whether a space is put before each text) of a byte-level pre-tokenizer.

    Raises:
        UnsupportedError: it is none, or one that the scanners do not reproduce.
    """
    steps = flatten(pre_tokenizer, "pretokenizers")
    if not steps or steps[-1]["type"] != "ByteLevel":
        raise UnsupportedError("a BPE model without the pre-tokenizer ByteLevel at its end")
    *before, last = steps
    prefix = bool(last["add_prefix_space"])
    if prefix and before:
        raise UnsupportedError("add_prefix_space after another pre-tokenizer")
    if not before:
        return scan.GPT2 if last["use_regex"] else scan.WHOLE, prefix
    if last["use_regex"]:
        if len(before) == 1 and before[0]["type"] == "Digits":
            alone = before[0]["individual_digits"]
            return scan.GPT2 | (scan.ISOLATE_DIGITS if alone else scan.ISOLATE_NUMBERS), False
    elif tuple(map(_isolated, before)) == cuts.DEEPSEEK_PATTERNS:
        return scan.DEEPSEEK, False
    elif len(before) == 1:
        rules = EXPRESSIONS.get(_tiled(before[0]) or "")
        if rules is not None:
            return rules, False
    names = ", ".join(str(step["type"]) for step in steps)
    raise UnsupportedError(f"the pre-tokenizer {names} with {_describe(before[0])}")


def flatten(step: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """Return the steps of nested Sequences in order."""
    if step is None:
        return []
    if step["type"] == "Sequence":
        return [inner for part in step[key] for inner in flatten(part, key)]
    return [step]


def _isolated(step: dict[str, Any]) -> str | None:
    if step["type"] == "Split" and (step["behavior"], step["invert"]) == ("Isolated", False):
        expression: str | None = step["pattern"].get("Regex")
        return expression
    return None


def _tiled(step: dict[str, Any]) -> str | None:
    if step["type"] == "Split" and (step["behavior"], step["invert"]) == ("Removed", True):
        expression: str | None = step["pattern"].get("Regex")
        return expression
    return _isolated(step)


def _describe(step: dict[str, Any]) -> str:
    shown = {key: value for key, value in step.items() if key != "type"}
    text = str(shown)
    return text if len(text) < 200 else text[:200] + " ..."
