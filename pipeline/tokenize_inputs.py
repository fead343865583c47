"""`gristmill tokenize`: text files in, PREFIX.bin and PREFIX.idx in input order out.

The counterpart of Megatron's `preprocess_data.py`, with its bytes: nothing is cleaned, dropped or
moved. One process reads the files in order and hands blocks to threads that encode them; what comes
back is appended to files that become the prefix. A killed run goes on from the last entry of its
journal in PREFIX.work, which is removed at the end.
(The module has not the name of its function: importing it would hide the function.)
"""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..indexed_dataset import DatasetManifest, PrefixExistsError
from ..indexed_dataset.adopting import adopt_tokens
from ..indexed_dataset.atomic import atomic_path
from ..indexed_dataset.paths import prefix_paths, strip_suffix
from .batches import Piece
from .config import SourceConfig
from .encode_inputs import Encoding, encode_task, plan_tasks
from .executors import count_workers
from .ordered import map_in_order
from .progress import Progress
from .sources import SourceFile, find_files
from .special_strings import SpecialStrings, describe_special
from .stage import fingerprint
from .token_journal import COMMIT_SECONDS, JournalEntry, TokenJournal
from .tokenizer import SpecialStrings as SpecialStringsMode
from .tokenizer import Tokenizer
from .units import fingerprints, plan_units

logger = logging.getLogger(__name__)

VERSION = 2

PIECE_BYTES = 16_000_000
"""Part of a plain or Parquet file that is read in one go; a compressed file is one piece."""


def tokenize_files(
    inputs: Sequence[str],
    output_prefix: str | os.PathLike[str],
    tokenizer: str,
    *,
    json_keys: Sequence[str] = ("text",),
    append_eod: bool = False,
    eod: str = "",
    prepend_bos: bool = False,
    bos: str = "",
    add_special_tokens: bool = False,
    special_strings: SpecialStringsMode = "as_tokens",
    workers: int = 0,
    overwrite: bool = False,
    piece_bytes: int = PIECE_BYTES,
    commit_seconds: float = COMMIT_SECONDS,
    progress: Progress | None = None,
) -> list[Path]:
    """Tokenize files straight into indexed datasets; return their prefixes.

    Documents stand in the order of the inputs, and inside a folder or glob in the order of the
    file names. An empty text is a document without tokens (and without EOD), as in Megatron.
    What cannot be read stands in PREFIX.rejected.jsonl, with file and offset; with several keys a
    document that lacks one is left out of all, so that the datasets stay aligned.

    Args:
        inputs: files, folders, globs (.jsonl, .parquet, .arrow, .txt, also .gz and .zst).
        output_prefix: PREFIX; one key is written to PREFIX, several to PREFIX_KEY each.
        tokenizer: a tokenizer.json, a folder that holds one, or a hub id.
        json_keys: fields or columns to tokenize. Of the second and later ones, values that are
            not strings are tokenized as JSON.
        append_eod: end each document with the end-of-document token.
        eod: that token; empty: the tokenizer's own.
        prepend_bos: begin each document with the beginning-of-text token.
        bos: that token; empty: the tokenizer's own.
        add_special_tokens: put around each document what the tokenizer's post-processor puts
            there, as Megatron does for Hugging Face tokenizers unless it is told not to.
        special_strings: what becomes of a special token that a text spells out: "as_tokens", its
            id, as with `tokenizers` and Megatron (they are counted, and the user is told);
            "as_text", ids of its characters.
        workers: threads that encode; 0: one for each usable CPU. Changes no byte.
        overwrite: replace prefixes that exist.
        piece_bytes: part of a plain or Parquet file that is read in one go. Changes no byte.
        commit_seconds: work that a kill can cost at most. Changes no byte.
        progress: what the user sees.

    Raises:
        PrefixExistsError: a prefix exists and `overwrite` is false; nothing was done.
        PrefixBusyError: another process writes the same prefix.
        FileNotFoundError, ValueError: the inputs or the tokenizer cannot be used.
    """
    base = strip_suffix(output_prefix)
    keys = tuple(dict.fromkeys(json_keys))
    if not keys:
        raise ValueError("no JSON key to tokenize: name at least one, text is usual")
    if prepend_bos and add_special_tokens:
        raise ValueError(
            "prepend_bos and add_special_tokens are both set: where the tokenizer's post-processor "
            "adds a beginning-of-text token, documents would begin with two. Leave one out"
        )
    prefixes = [Path(base if len(keys) == 1 else f"{base}_{key}") for key in keys]
    _refuse_existing(prefixes, overwrite)
    engine = Tokenizer(tokenizer, eod=eod, special_strings=special_strings)
    settings: dict[str, Any] = {
        "append_eod": append_eod,
        "prepend_bos": prepend_bos,
        "add_special_tokens": add_special_tokens,
        "special_strings": special_strings,
    }
    after = engine.eod_id if append_eod else None  # an unknown one is an error now
    before = engine.find_bos(bos) if prepend_bos else None
    files = _files_in_order(inputs, keys)
    pieces = [piece for file in files for piece in _pieces(file, piece_bytes)]
    threads = workers or count_workers()
    encoding = Encoding(
        tokenizer=engine,
        num_keys=len(keys),
        file_numbers={file.path: number for number, file in enumerate(files)},
        before=before,
        after=after,
        add_special_tokens=add_special_tokens,
        special=SpecialStrings(engine, add_special_tokens=add_special_tokens),
        threads=threads,
    )
    work = Path(f"{base}.work")
    what = fingerprint(
        VERSION, settings, before, after, keys, engine.fingerprint, engine.dtype.name,
        *(part for unit in plan_units(files, 1 << 62) for part in fingerprints(unit)),
    )  # fmt: skip
    shown = progress or Progress()
    with TokenJournal(work, what, len(keys), engine.dtype, commit_seconds) as journal:
        _encode_all(pieces, journal, encoding, threads, shown)
        journal.flush()
        if not journal.entry.documents:
            _report(base, journal)
            shutil.rmtree(work)
            raise ValueError(
                f"{', '.join(inputs)}: no document has the key{'s' * (len(keys) > 1)} "
                f"{', '.join(keys)}, so nothing was written. Name the right --json-keys, or see "
                f"{base}.rejected.jsonl if it exists"
            )
        for number, prefix in enumerate(prefixes):
            state = journal.entry.keys[number]
            manifest = DatasetManifest(
                dtype=engine.dtype.name,
                num_documents=0,  # counts are filled in from the files
                num_sequences=0,
                num_tokens=0,
                text_bytes=state.text_bytes,
                vocab_size=engine.vocab_size,
                eod_id=after,
                max_token_id=state.max_token_id,
                tokenizer={"fingerprint": engine.fingerprint},
                document_order="input",
                origin_files=tuple(file.origin_file for file in files),
                config={**settings, "json_key": keys[number]},
                stages={"tokenize_files": VERSION},
            )
            adopt_tokens(
                prefix, work / f"{number}.bin", journal.documents(number), journal.blocks(number),
                manifest, overwrite=overwrite,
            )  # fmt: skip
        _report(base, journal)
        shutil.rmtree(work)
    return prefixes


def _encode_all(
    pieces: Sequence[Piece],
    journal: TokenJournal,
    encoding: Encoding,
    threads: int,
    progress: Progress,
) -> None:
    """Append the tokens of all pieces to the journal's files."""
    entry = journal.entry
    total = sum(piece.size_bytes for piece in pieces)
    done = entry.input_bytes
    with progress.stage(
        "tokenize", total - done, num_units=len(pieces) - entry.piece, num_skipped=entry.piece
    ) as bar:
        tasks = plan_tasks(pieces, (entry.piece, entry.blocks))
        results = map_in_order(lambda task: encode_task(task, encoding), tasks, threads)
        finished = entry.piece
        for result in results:
            entry.notices += result.notices
            entry.special = dict(Counter(entry.special) + result.special)
            journal.add(
                result.parts,
                result.rejected,
                position=result.position,
                input_bytes=result.input_bytes,
            )
            bar.update(entry.input_bytes - done)
            for _ in range(entry.piece - finished):
                bar.unit_done()
            finished = entry.piece


def _report(base: str, journal: TokenJournal) -> None:
    """Write PREFIX.rejected.jsonl if anything was rejected, and tell the user."""
    path = Path(f"{base}.rejected.jsonl")
    entry: JournalEntry = journal.entry
    for notice in entry.notices:
        logger.warning("%s", notice)
    if entry.rejected == 0:
        path.unlink(missing_ok=True)  # of an earlier run with the same prefix
    else:
        journal.flush()
        with atomic_path(path) as temporary:
            shutil.copyfile(journal.folder / "rejected.jsonl", temporary)
        logger.warning("%d documents were rejected: %s says which and why", entry.rejected, path)
    if entry.special:
        logger.warning(
            "special tokens that texts spell out became those tokens: %s. With --special-strings "
            "as_text they are encoded as any other text",
            describe_special(entry.special),
        )
    logger.info("%d documents were tokenized into %s", entry.documents, base)


def _refuse_existing(prefixes: Sequence[Path], overwrite: bool) -> None:
    for prefix in prefixes:
        if prefix_paths(prefix).idx.exists() and not overwrite:
            raise PrefixExistsError(
                f"the dataset {prefix} exists already, and nothing was done. Choose another "
                "prefix, remove its files, or allow overwriting (--overwrite)"
            )


def _files_in_order(inputs: Sequence[str], keys: Sequence[str]) -> list[SourceFile]:
    """Return the files of all inputs, in their order, each once and with a name of its own."""
    found: dict[str, SourceFile] = {}
    for path in inputs:
        for file in find_files([SourceConfig(path=path, text_key=keys[0], language_keys=())]):
            if file.path in found:
                logger.warning("%s is named twice: it is read once", file.path)
            # The keys are given past the check of SourceConfig.columns, which may not be `text`.
            source = replace(file.source, columns=tuple(keys[1:]))
            found.setdefault(file.path, replace(file, source=source))
    files = list(found.values())
    if len({file.origin_file for file in files}) < len(files):
        common = os.path.commonpath([file.path for file in files])
        files = [
            replace(file, origin_file=os.path.relpath(file.path, common).replace(os.sep, "/"))
            for file in files
        ]
    return files


def _pieces(file: SourceFile, piece_bytes: int) -> list[Piece]:
    """Return the parts of a file in their order."""
    return [piece for unit in plan_units([file], piece_bytes) for piece in unit.pieces]
