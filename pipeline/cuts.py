r"""Where a long text may be cut so that its pieces give the same ids: text in, byte ranges out.

`tokenizers` needs 36 to 372 bytes of memory for one byte of a text that it encodes whole (6.9 GB
for 50 MB of English), so a long document goes through it in pieces. A position is a *safe cut* when
encode(text) = encode(text[:cut]) + encode(text[cut:]) for every text; this page names them for
the families of byte-level BPE tokenizers in use, and says why. Where none is known there are none.

Below, \s is the 25 code points that Oniguruma calls white space, "space" is U+0020, x is the code
point before the cut and y the one after it.

Rule "words" (GPT-2, alone or after Digits): cut before a space or LF when x is not \s.
    '(s|t|re|ve|m|ll|d) | space?L+ | space?N+ | space?[^\sLN]+ | \s+(?!\S) | \s+
    Every alternative is white space alone, or one optional space *first* and no white space after
    it. So white space after a non-space ends the piece before it and begins the next: a boundary.
    On the left the greedy runs stop at the end of the text where they stopped at the white space;
    the only look-ahead, (?!\S), stands after a white space run, and each such run on the left is
    followed by a non-space on the left, because x is one. Nothing looks back, so the right side
    is split as before. Digits isolates single code points and adds boundaries only.

Rule "lines" (cl100k, Qwen, o200k, tekken, DeepSeek-V3, ours): two cuts.
    (a) before a space when x is not \s. Beside those of GPT-2 the alternatives are
        [^\r\n..]?[letters]+(contraction)?, N{1,3}, space?[punctuation]+[\r\n/]*, \s*[\r\n]+ and
        [ASCII punctuation][A-Za-z]+: after their first code point none takes a space that follows
        a non-space, so the argument above holds word for word. DeepSeek-V3 first isolates
        digits, then kana and Han, then applies its pattern inside the pieces and leaves what
        matches nothing (joiners, unassigned) as pieces of its own: a space always begins a match,
        hence such a leftover ends at the cut on both sides.
    (b) after LF when y is not \s and not "/" (o200k's punctuation takes [\r\n/]*). The LF was
        taken by a punctuation's [\r\n/]* or by \s*[\r\n]+, which takes its white space run up to
        the *last* CR or LF, here the LF before y: both end at the cut, with and without the
        right side; [^\r\n...]? excludes CR and LF, so y's piece cannot begin with the LF.

What else must hold, and is checked: normalizer none or NFC (neither a space nor LF ever composes
with a neighbour, and both stop reordering: NFC of the whole is NFC of the sides; it turns white
space into white space and nothing else into it or into "/"); ByteLevel without add_prefix_space;
no added token holds white space or strips its neighbours' (a match then lies on one side; for a
`single_word` token white space and the end of the text are both no word); a BPE model, which
sees one piece at a time.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

PIECE_BYTES = 128_000
"""A piece ends at the first safe cut after so many bytes."""

MAX_PIECE_BYTES = 3_000_000
"""A text with more bytes between two safe cuts is not encoded. `tokenizers` takes 36 to 372 bytes
of memory for one byte of such a text (measured; the most where each digit is a piece), so this
many take 1.1 GB at worst, and a worker with the largest tokenizers (0.4 GB) stays below 2 GB."""

_SPACE_2 = rb"\xc2[\x85\xa0]"
_SPACE_3 = rb"\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f|\xe3\x80\x80"
_AFTER_NON_SPACE = rb"(?<=.)(?<![\t-\r ])(?<!" + _SPACE_2 + rb")(?<!" + _SPACE_3 + rb")"
_BEFORE_NON_SPACE_OR_SLASH = rb"(?![\t-\r /]|" + _SPACE_2 + rb"|" + _SPACE_3 + rb"|\Z)"

RULES: dict[str, re.Pattern[bytes]] = {
    "words": re.compile(_AFTER_NON_SPACE + rb"(?=[ \n])", re.DOTALL),
    "lines": re.compile(
        _AFTER_NON_SPACE + rb"(?= )|(?<=\n)" + _BEFORE_NON_SPACE_OR_SLASH, re.DOTALL
    ),
}
"""Each rule as an expression over UTF-8 bytes that matches, with no width, where one may cut."""

_TAIL = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = r"[^\r\n\p{L}\p{N}]?"

OURS = r"[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+|\p{N}{1,3}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + _TAIL
r"""Pre-tokenizer of the tokenizers trained here. In the spirit of cl100k, with two changes:
combining marks belong to their letters ([\p{L}\p{M}]+), so that a word of an Indic script, of
Thai or of pointed Hebrew is one piece; and no English contractions ('s is one piece anyway, the
apostrophe being the optional first code point of a word)."""

_LINE_PATTERNS = frozenset(
    {
        OURS,
        # cl100k, Llama-3; Qwen 2 and 3 (single digits); Qwen 3.5 (marks with letters)
        _CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _TAIL,
        _CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _TAIL,
        _CONTRACTION
        + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
        + _TAIL,
        # o200k; tekken (no contractions, single digits)
        f"{_CASED}{_UPPER}*{_LOWER}+{_CONTRACTION}?|{_CASED}{_UPPER}+{_LOWER}*{_CONTRACTION}?"
        + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*"
        + _TAIL,
        f"{_CASED}{_UPPER}*{_LOWER}+|{_CASED}{_UPPER}+{_LOWER}*"
        + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*"
        + _TAIL,
    }
)
DEEPSEEK_PATTERNS = (
    r"\p{N}{1,3}",
    "[一-龥\u3040-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
)


def find_rule(tokenizer_json: dict[str, Any]) -> str | None:
    """Return the name in `RULES` of the cuts that are safe for a tokenizer.json, or None."""
    if tokenizer_json["model"].get("type", "BPE") != "BPE":
        return None
    if not _normalizer_allows(tokenizer_json.get("normalizer")):
        return None
    for token in tokenizer_json.get("added_tokens") or []:
        if token["lstrip"] or token["rstrip"] or re.search(r"\s", token["content"]):
            return None
    steps = _flatten(tokenizer_json.get("pre_tokenizer"), "pretokenizers")
    if not steps or steps[-1]["type"] != "ByteLevel" or steps[-1]["add_prefix_space"]:
        return None
    *before, byte_level = steps
    if byte_level["use_regex"]:
        return "words" if all(step["type"] == "Digits" for step in before) else None
    patterns = tuple(_split_pattern(step) for step in before)
    if patterns == DEEPSEEK_PATTERNS or (len(patterns) == 1 and patterns[0] in _LINE_PATTERNS):
        return "lines"
    return None


def cut(text: bytes | memoryview, rule: str | None, piece_bytes: int | None = None) -> list[int]:
    """Return the bounds of the pieces of a UTF-8 text: [0, ..., len(text)].

    Each piece but the last ends at the first safe cut after `piece_bytes` (None: `PIECE_BYTES`); a
    text that is no longer than that, or has no rule, is one piece.
    """
    piece_bytes = piece_bytes or PIECE_BYTES
    bounds = [0]
    if rule is not None:
        pattern = RULES[rule]
        while len(text) - bounds[-1] > piece_bytes:
            match = pattern.search(text, bounds[-1] + piece_bytes)
            if match is None or match.start() == len(text):
                break
            bounds.append(match.start())
    bounds.append(len(text))
    return bounds


def longest_piece(text: bytes, rule: str | None) -> int:
    """Return the bytes of the longest piece that `cut` makes of a text."""
    bounds = cut(text, rule)
    return max(end - start for start, end in itertools.pairwise(bounds))


def _flatten(step: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    if step is None:
        return []
    if step["type"] == "Sequence":
        return [inner for part in step[key] for inner in _flatten(part, key)]
    return [step]


def _normalizer_allows(normalizer: dict[str, Any] | None) -> bool:
    return all(step["type"] == "NFC" for step in _flatten(normalizer, "normalizers"))


def _split_pattern(step: dict[str, Any]) -> str | None:
    """Return the expression of a Split that keeps every match and gap as a piece, else None."""
    if step["type"] != "Split" or "Regex" not in step["pattern"]:
        return None
    kept = (step["behavior"], step["invert"]) in (("Isolated", False), ("Removed", True))
    return str(step["pattern"]["Regex"]) if kept else None
