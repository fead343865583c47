"""What a run of conversations can be told: a configuration in, the one that is run or an error out.

Stages that change texts by place, or choose by columns that only texts have, would lose the places
of the loss mask: they are refused, not skipped.
"""

from __future__ import annotations

import logging
import re
from dataclasses import replace

from .config import CleanConfig, PreprocessConfig
from .conversations import TaskReader
from .formats import WHOLE_ROW

logger = logging.getLogger(__name__)

_PAIR = re.compile(r"[a-z]{3}-[a-z]{3}")


def for_conversations(config: PreprocessConfig) -> PreprocessConfig:
    """Return the configuration with whole rows as texts and without near duplicates.

    Raises:
        ValueError: a setting is for texts only, or a task cannot be read.
    """
    clean, usual = config.clean, CleanConfig()
    texts_only = {
        "clean.c4_lines": clean.c4_lines != usual.c4_lines,
        "clean.language": clean.language != usual.language,
        "clean.redaction": clean.redaction != usual.redaction,
        "clean.annotate (or a filter that counts words or scores)": clean.annotate
        != usual.annotate,
        "passages": config.passages.lines != "off"
        or config.passages.paragraphs != "off"
        or config.passages.spans != "off",
        "rehydration": config.rehydration.mode != "off",
        "filters.decontamination": bool(config.filters.decontamination.evaluations),
        "dedup.against": bool(config.dedup.against),
        "tokenizer.special_strings (chat.special_strings is for turns)": (
            config.tokenizer.special_strings != "as_tokens"
        ),
    }
    for name, is_set in texts_only.items():
        if is_set:
            raise ValueError(
                f'{name} is for kind = "text", and kind is {config.kind!r}: leave it out, or do it '
                "in a run of its own before"
            )
    if config.chat.max_tokens < 0:
        raise ValueError(
            f"chat.max_tokens is {config.chat.max_tokens}: it must be 0 (no limit) or more (the "
            "sequence length of the training is usual)"
        )
    for source in config.sources:
        where = f"source {source.name or source.path!r}"
        if source.format == "text":
            raise ValueError(
                f'{where}: plain text holds no conversations, and kind is "{config.kind}". Give '
                "JSON lines, Parquet or Arrow files"
            )
        if source.text_key not in ("text", WHOLE_ROW):
            raise ValueError(
                f"{where}: text_key is for texts; name the fields of a row in chat.messages_key, "
                "or in the source's task"
            )
        TaskReader(source.task, "")
        for pair in source.task.language_pairs:
            if not _PAIR.fullmatch(pair):
                raise ValueError(
                    f"{where}: task.language_pairs names {pair!r}: write two ISO 639-3 codes, "
                    "source and target (eng-jpn)"
                )
    if config.dedup.near:
        logger.info("near duplicates are not looked for among conversations, equal ones are")
    return replace(
        config,
        sources=tuple(replace(source, text_key=WHOLE_ROW) for source in config.sources),
        dedup=replace(config.dedup, near=False),
    )
