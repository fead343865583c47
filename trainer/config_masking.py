"""What a user can set about masked language modelling: plain typed values in, nothing done here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskingConfig:
    """Which tokens an encoder (model.causal = false) is to fill in, and what it is shown instead.

    Masks are a function of (training.seed, number of the sample, place): other ranks, another
    micro-batch or a resumed run see the same, another epoch sees others. Tokens are chosen one by
    one, so the share of a sample varies around that asked for.
    """

    share: float = 0.3
    """Expected share of tokens that are predicted (BERT 0.15, ModernBERT 0.3)."""
    mask_share: float = 0.8
    """Of these, those replaced by the mask token."""
    random_share: float = 0.1
    """Of these, those replaced by a random token; the others are shown as they are."""
    whole_words: bool = False
    """Choose all tokens of a word together; words are those of the tokenizer (WordPiece's ##, the
    leading space of byte-level and SentencePiece tokenizers; each character of scripts without
    spaces is a word)."""
    mask_token: str = ""
    """Text of the mask token. Empty: [MASK] or <mask> where the tokenizer has one, else its last
    <|reserved_N|>, else an id added to the model's vocabulary; an export calls these [MASK]."""


def check_masking_config(masking: MaskingConfig, causal: bool) -> None:
    """Refuse masks that cannot be, or that nothing would use.

    Raises:
        ValueError: names the field, its value and what to set instead.
    """
    if causal and masking != MaskingConfig():
        raise ValueError(
            "[pretrain.masking] is set, but model.causal = true: a decoder predicts the next token "
            "and masks none. Set model.causal = false (or an encoder's preset), or leave it out"
        )
    if not 0 < masking.share <= 1:
        raise ValueError(
            f"masking.share is {masking.share}: it must be greater than 0 and at most 1, for these "
            "are the tokens that the model learns from"
        )
    shares = masking.mask_share, masking.random_share
    if min(shares) < 0 or sum(shares) > 1 + 1e-9:
        raise ValueError(
            f"masking.mask_share is {shares[0]} and masking.random_share {shares[1]}: neither may "
            "be negative, and together they are at most 1"
        )
