"""One batch of raw documents flows in, its clean documents and the dropped ones flow out.

In this order: form (mojibake, newlines, control characters, NFC), C4's lines, redaction, length;
then columns: language, statistics, scores, the user's own. All but length only changes or adds;
whether a document stays is otherwise decided later, by `filters`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .batches import EXCERPT_BYTES, ReadBatch, Rejected, text_array
from .c4_lines import keep_c4_lines
from .config import CleanConfig, PreprocessConfig
from .documents import UNKNOWN_LANGUAGE, document_schema
from .fasttext_models import beginning, default_language_model, open_model, predict
from .filter_verdicts import TEXT_BYTES
from .language import normalize_language
from .language_identification import LanguageIdentifier
from .lines import MAX_DOCUMENT_BYTES
from .normalize import Normalizer
from .redaction import Redactor
from .sources import SourceFile
from .statistics import STATISTICS_FIELD, statistics_array
from .text_column import text_arrays

IDENTIFIED_FIELDS = (
    pa.field("identified_language", pa.string()),  # null where it was not identified
    pa.field("language_score", pa.float32()),  # probability of it
)


def added_fields(config: CleanConfig) -> list[pa.Field]:
    """Return the columns that cleaning adds; those of the user's hook follow in their own types."""
    fields: list[pa.Field] = []
    if config.language.documents != "off":
        fields += IDENTIFIED_FIELDS
    if config.annotate.text_bytes:
        fields.append(pa.field(TEXT_BYTES, pa.int64(), nullable=False))
    if config.annotate.statistics:
        fields.append(STATISTICS_FIELD)
    fields += [pa.field(one.name, pa.float32()) for one in config.annotate.scorers]
    return fields


class Cleaner:
    """Cleans the batches of one unit; counts what is no document's fate in `counts`."""

    def __init__(self, config: CleanConfig) -> None:
        self._config = config
        self._normalize = Normalizer(config)
        self._redactor = Redactor(config.redaction)
        self._identify: LanguageIdentifier | None = None
        self._hook = load_hook(config.annotate.hook) if config.annotate.hook else None
        self.hook_fields: list[pa.Field] = []
        self.mismatches: Counter[tuple[str, str]] = Counter()

    @property
    def redacted(self) -> dict[str, int]:
        """Number of addresses replaced, by kind."""
        return self._redactor.counts

    def __call__(self, file: SourceFile, batch: ReadBatch) -> tuple[pa.RecordBatch, list[Rejected]]:
        """Return the clean documents of a batch, and all that were dropped, in order."""
        config, raw = self._config, batch.documents
        data, offsets = text_arrays(raw.column("text"))
        data, offsets = data[offsets[0] : offsets[-1]], offsets - offsets[0]
        view = memoryview(data)  # type: ignore[arg-type]  # numpy 2 arrays are buffers
        bounds = list(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True))
        ids = [hashlib.blake2b(view[a:b], digest_size=16).digest() for a, b in bounds]
        changed = self._change(data, offsets)
        input_ids = raw.column("input_id").to_pylist()
        places = raw.column("origin_offset").to_pylist()
        languages = raw.column("language").to_pylist()

        dropped: list[Rejected] = list(batch.rejected)
        kept = np.ones(len(raw), np.bool_)
        texts: list[bytes | memoryview] = []
        for index, (start, end) in enumerate(bounds):
            clean = changed.get(index, view[start:end])
            reason, detail = why_not(end - start, clean, config)
            if not reason:
                texts.append(clean)
                continue
            kept[index] = False
            dropped.append(
                Rejected(
                    origin_offset=places[index],
                    reason=reason,
                    detail=detail,
                    input_id=input_ids[index],
                    language=languages[index],
                    id=ids[index],
                    text_bytes=len(clean),
                    excerpt=str(bytes(clean[:EXCERPT_BYTES]), "utf-8", "ignore"),
                )
            )
        dropped.sort(key=lambda one: one.origin_offset)

        all_kept = bool(kept.all())
        if not all_kept:
            raw = raw.filter(pa.array(kept))
            ids = [one for one, is_kept in zip(ids, kept, strict=True) if is_kept]
            languages = raw.column("language").to_pylist()
        unchanged = all_kept and not changed
        names = [normalize_language(file.language or code or "") for code in languages]
        added = self._identify_languages(texts, names)  # may fill `names`
        text = raw.column("text") if unchanged else text_array(texts)
        arrays = {
            "id": pa.array(ids, pa.binary(16)),
            "input_id": raw.column("input_id"),
            "text": text,
            "language": pa.array(names, pa.string()),
            "source": pa.repeat(file.source_name, len(ids)),
            "origin_file": pa.repeat(file.origin_file, len(ids)),
            "origin_offset": raw.column("origin_offset"),
        }
        for column in file.source.columns:
            arrays[column] = raw.column(column)
        schema = document_schema(file.source.columns)
        if added_fields(config):
            added += self._count_and_score(texts, text, names)
            arrays.update(zip([field.name for field in added_fields(config)], added, strict=True))
            for field in added_fields(config):
                schema = schema.append(field)
        clean_batch = pa.RecordBatch.from_arrays(list(arrays.values()), schema=schema)
        return self._add_own_columns(clean_batch), dropped

    def _change(self, data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> dict[int, bytes]:
        """Return the texts that are not what was read: index -> new text."""
        changed = self._normalize(data, offsets)
        if self._config.c4_lines != "keep":
            for index in range(len(offsets) - 1):
                before = _text(data, offsets, changed, index)
                after = keep_c4_lines(before.decode(), self._config.c4_lines == "any_ending")
                if after.encode() != before:
                    changed[index] = after.encode()
        if self._redactor.is_on:
            found = set(self._redactor.candidates(data, offsets).tolist()) | changed.keys()
            for index in sorted(found):
                before = _text(data, offsets, changed, index)
                after_bytes = self._redactor(before)
                if after_bytes != before:
                    changed[index] = after_bytes
        return changed

    def _identify_languages(
        self, texts: list[bytes | memoryview], names: list[str]
    ) -> list[pa.Array]:
        """Return the columns IDENTIFIED_FIELDS; documents without a language get theirs."""
        identification = self._config.language
        if identification.documents == "off":
            return []
        if self._identify is None:
            self._identify = LanguageIdentifier(identification)
        found: list[str | None] = [None] * len(names)
        scores: list[float | None] = [None] * len(names)
        for index, name in enumerate(names):
            is_given = name != UNKNOWN_LANGUAGE
            if is_given and identification.documents == "missing":
                continue
            found[index], scores[index] = language, score = self._identify(texts[index])
            if not is_given and score >= identification.min_score:
                names[index] = language
            elif is_given and not same_language(language, name):
                self.mismatches[name, language] += 1
        return [pa.array(found, pa.string()), pa.array(scores, pa.float32())]

    def _count_and_score(
        self, texts: list[bytes | memoryview], text: pa.Array, names: list[str]
    ) -> list[pa.Array]:
        annotate = self._config.annotate
        added: list[pa.Array] = []
        if annotate.text_bytes:
            added.append(pa.array([len(one) for one in texts], pa.int64()))
        if annotate.statistics:
            data, offsets = text_arrays(text)
            added.append(statistics_array(data, offsets, names, annotate.stop_words))
        for scorer in annotate.scorers:
            model = open_model(scorer.model)
            scores = [
                dict(predict(model, beginning(one, scorer.max_characters), -1)).get(
                    scorer.label, 0.0
                )
                for one in texts
            ]
            added.append(pa.array(scores, pa.float32()))
        return added

    def _add_own_columns(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Add the columns of the user's hook, which must be those that were announced."""
        if self._hook is None:
            return batch
        hook, wanted = self._config.annotate.hook, self._config.annotate.hook_columns
        columns = self._hook(batch)
        if set(columns) != set(wanted):
            raise ValueError(
                f"{hook} returned the columns {sorted(columns)}; clean.annotate.hook_columns says "
                f"{sorted(wanted)}"
            )
        for name in wanted:
            column = columns[name]
            if not isinstance(column, pa.Array) or len(column) != len(batch):
                raise ValueError(
                    f"{hook} must return a pyarrow array of {len(batch)} values as {name!r}, one a "
                    f"document of the batch; it returned {type(column).__name__} of "
                    f"{len(column) if hasattr(column, '__len__') else 'no'} values"
                )
            field = pa.field(name, column.type)
            known = {one.name: one for one in self.hook_fields}.setdefault(name, field)
            if known.type != column.type:
                raise ValueError(
                    f"{hook} returned {name!r} as {column.type} after {known.type}: a column has "
                    "one type, so give pyarrow.array a type"
                )
            if name not in [one.name for one in self.hook_fields]:
                self.hook_fields.append(field)
            batch = batch.append_column(field, column)
        return batch


def without_hook(config: CleanConfig) -> CleanConfig:
    """Return the config without the user's function, which may want columns of its own."""
    annotate = replace(config.annotate, hook="", hook_columns=())
    return replace(config, annotate=annotate)


def check_texts(config: PreprocessConfig) -> None:
    """Raise ValueError for what cleaning cannot do: models and functions that are not there."""
    clean = config.clean
    if clean.language.documents != "off":
        open_model(clean.language.model or default_language_model())
    if clean.language.max_characters < 1:
        raise ValueError("clean.language.max_characters must be 1 or more (500 is usual)")
    for scorer in clean.annotate.scorers:
        labels = [label for label, _ in predict(open_model(scorer.model), "a", -1)]
        if scorer.label not in labels:
            raise ValueError(
                f"the model {scorer.model} of the scorer {scorer.name!r} has no label "
                f"{scorer.label!r}; it has {', '.join(sorted(labels)[:20])}"
            )
    if clean.annotate.hook:
        load_hook(clean.annotate.hook)
        if not clean.annotate.hook_columns:
            raise ValueError(
                "clean.annotate.hook is set, but hook_columns is empty: name the columns that "
                f"{clean.annotate.hook} returns"
            )
    if clean.mojibake and importlib.util.find_spec("ftfy") is None:
        raise ValueError(
            "clean.mojibake needs the package ftfy: pip install ftfy, or set it to false"
        )
    added = [field.name for field in added_fields(clean)] + list(clean.annotate.hook_columns)
    for source in config.sources:
        clash = sorted({*document_schema().names, *added} & set(source.columns))
        if clash or len(set(added)) < len(added):
            raise ValueError(
                f"the columns {clash or sorted(added)} of source {source.name or source.path!r} "
                "have names that documents use themselves: give them other names"
            )


def _text(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    changed: dict[int, bytes],
    index: int,
) -> bytes:
    if index in changed:
        return changed[index]
    return data[offsets[index] : offsets[index + 1]].tobytes()


def same_language(one: str, other: str) -> bool:
    """Say whether two languages agree; Chinese in any of its scripts is Chinese."""
    return one == other or (one[:4] == other[:4] == "cmn_")


def load_hook(name: str) -> Callable[[pa.RecordBatch], dict[str, Any]]:
    """Return the function that `module:function` names.

    Raises:
        ValueError: there is none.
    """
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"clean.annotate.hook is {name!r}, which cannot be imported ({error}): write "
            "`module:function`, with the module on PYTHONPATH"
        ) from error
    result: Callable[[pa.RecordBatch], dict[str, Any]] = found
    return result


def why_not(raw_bytes: int, text: bytes | memoryview, config: CleanConfig) -> tuple[str, str]:
    """Return (reason, detail) for dropping a text, two empty strings for keeping it."""
    size = len(text)
    if raw_bytes > MAX_DOCUMENT_BYTES:
        return "too_long", f"{raw_bytes} bytes; at most {MAX_DOCUMENT_BYTES} are read at once"
    if size == 0:
        return "empty", f"{raw_bytes} bytes before cleaning"
    if size < 4 * config.min_characters:  # a character has at most 4 bytes
        characters = len(str(text, "utf-8"))
        if characters < config.min_characters:
            return (
                "too_short",
                f"{characters} characters; min_characters is {config.min_characters}",
            )
    if 0 < config.max_bytes < size:
        return "too_long", f"{size} bytes; max_bytes is {config.max_bytes}"
    return "", ""
