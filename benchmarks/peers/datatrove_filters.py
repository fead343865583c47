"""Run datatrove's Gopher, C4 and FineWeb filters on JSON lines; one JSON object a line comes out.

Usage: .venv-peers/bin/python datatrove_filters.py FILE [decisions | seconds]

decisions: for each document {family or rule: does it pass?}, where a rule is its family's filter
with every other threshold switched off. seconds: of one pass of the four families with their
defaults, for each family; words are split once a document, as datatrove caches them.
"""

import copy
import json
import sys
import time

from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)

FAMILIES = {
    "gopher_quality": GopherQualityFilter,
    "gopher_repetition": GopherRepetitionFilter,
    "c4": C4QualityFilter,
    "fineweb": FineWebQualityFilter,
}
QUALITY_OFF = {
    "min_doc_words": None,
    "max_doc_words": None,
    "min_avg_word_length": None,
    "max_avg_word_length": None,
    "max_symbol_word_ratio": None,
    "max_bullet_lines_ratio": None,
    "max_ellipsis_lines_ratio": None,
    "max_non_alpha_words_ratio": None,
    "min_stop_words": None,
}
REPETITION_OFF = {
    "dup_line_frac": None,
    "dup_para_frac": None,
    "dup_line_char_frac": None,
    "dup_para_char_frac": None,
    "top_n_grams": (),
    "dup_n_grams": (),
}
FINEWEB_OFF = {
    "line_punct_thr": -1.0,
    "short_line_thr": 2.0,
    "char_duplicates_ratio": 2.0,
    "new_line_ratio": 1e9,
}


def make_rules():
    rules = {}

    def add(family, name, off, **on):
        rules[f"{family}.{name}"] = FAMILIES[family](**{**off, **on})

    q = "gopher_quality"
    add(q, "min_words", QUALITY_OFF, min_doc_words=50)
    add(q, "max_words", QUALITY_OFF, max_doc_words=100_000)
    add(q, "min_mean_word_length", QUALITY_OFF, min_avg_word_length=3)
    add(q, "max_mean_word_length", QUALITY_OFF, max_avg_word_length=10)
    add(q, "max_symbols_per_word", QUALITY_OFF, max_symbol_word_ratio=0.1)
    add(q, "max_bullet_lines", QUALITY_OFF, max_bullet_lines_ratio=0.9)
    add(q, "max_ellipsis_lines", QUALITY_OFF, max_ellipsis_lines_ratio=0.3)
    add(q, "min_alphabetic_words", QUALITY_OFF, max_non_alpha_words_ratio=0.8)
    add(q, "min_stop_words", QUALITY_OFF, min_stop_words=2)
    r = "gopher_repetition"
    add(r, "max_duplicate_lines", REPETITION_OFF, dup_line_frac=0.3)
    add(r, "max_duplicate_paragraphs", REPETITION_OFF, dup_para_frac=0.3)
    add(r, "max_duplicate_line_characters", REPETITION_OFF, dup_line_char_frac=0.2)
    add(r, "max_duplicate_paragraph_characters", REPETITION_OFF, dup_para_char_frac=0.2)
    for n, share in ((2, 0.2), (3, 0.18), (4, 0.16)):
        add(r, f"max_top_{n}gram", REPETITION_OFF, top_n_grams=((n, share),))
    shares = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
    for n, share in shares:
        add(r, f"max_duplicate_{n}gram", REPETITION_OFF, dup_n_grams=((n, share),))
    f = "fineweb"
    add(f, "min_punctuated_lines", FINEWEB_OFF, line_punct_thr=0.12)
    add(f, "max_short_lines", FINEWEB_OFF, short_line_thr=0.67)
    add(f, "max_duplicate_line_characters", FINEWEB_OFF, char_duplicates_ratio=0.01)
    add(f, "max_newlines_per_word", FINEWEB_OFF, new_line_ratio=0.3)
    rules["c4_any_ending"] = C4QualityFilter(filter_no_terminal_punct=False)
    return rules


def passes(step, document):
    result = step.filter(copy.copy(document))
    return result if isinstance(result, bool) else result[0]


def main():
    path, mode = sys.argv[1], sys.argv[2]
    with open(path, encoding="utf-8") as lines:
        documents = [Document(text=json.loads(line)["text"], id="") for line in lines]
    families = {name: kind() for name, kind in FAMILIES.items()}
    warm = Document(text="Some text to load the word tokenizer. " * 20, id="")
    for step in families.values():
        passes(step, warm)
    if mode == "seconds":
        seconds = dict.fromkeys(families, 0.0)
        for document in documents:
            for name, step in families.items():
                started = time.thread_time()
                passes(step, document)
                seconds[name] += time.thread_time() - started
        print(json.dumps(seconds))
        return
    steps = {**families, **make_rules()}
    for document in documents:
        print(json.dumps({name: passes(step, document) for name, step in steps.items()}))


if __name__ == "__main__":
    main()
