"""Ground truth: a generated corpus whose similarities are known, through the whole command.

Every pair within a family is labelled with its exact Jaccard similarity, as `gristmill.pipeline`
itself computes it; families are of unrelated random texts.
"""

import io
import itertools
import json
import random
import unicodedata

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from gristmill.pipeline import dedup_files, jaccard

TONES = "\u0300\u0301\u0303\u0309\u0323"  # of Vietnamese


def letters(first, last, marks=""):
    """Return letters of a block, some with a mark after them."""
    plain = [chr(code) for code in range(first, last) if chr(code).isalpha()]
    return plain + [letter + mark for letter in plain for mark in marks]


SCRIPTS = {
    # script: (letters, letters in a word; 0: no spaces)
    "Latn": (letters(0x61, 0x7B), 5),
    "Latn, Vietnamese": (letters(0x61, 0x7B, TONES), 4),
    "Cyrl": (letters(0x430, 0x450), 6),
    "Grek": (letters(0x3B1, 0x3CA), 6),
    "Arab": (letters(0x628, 0x63B, "\u064e\u064f\u0650"), 5),
    "Hebr": (letters(0x5D0, 0x5EB, "\u05b8\u05b6"), 5),
    "Deva": (letters(0x915, 0x93A, "\u093f\u0941\u0947\u094b"), 4),
    "Beng": (letters(0x995, 0x9B0, "\u09bf\u09c1"), 4),
    "Taml": (letters(0xB95, 0xBBA, "\u0bbf\u0bc1"), 5),
    "Hang": (letters(0xAC00, 0xAC00 + 2000), 3),
    "Ethi": (letters(0x1200, 0x1240), 4),
    "Hani": (letters(0x4E00, 0x4E00 + 1500), 0),
    "Jpan": (letters(0x3041, 0x3097) + letters(0x4E00, 0x4E00 + 300), 0),
    "Thai": (letters(0xE01, 0xE2F, "\u0e34\u0e35\u0e48\u0e49"), 0),
    "Laoo": (letters(0xE81, 0xEAF, "\u0eb4\u0ec8"), 0),
    "Khmr": (letters(0x1780, 0x17A3, "\u17b7\u17bb"), 0),
    "Mymr": (letters(0x1000, 0x1021, "\u102d\u102f"), 0),
    "Tibt": (letters(0xF40, 0xF6D, "\u0f72\u0f74"), 0),
}


class Script:
    """Random text of one script, as a list of units that can be edited: words, or letters."""

    def __init__(self, name, rng):
        self.alphabet, self.word_letters = SCRIPTS[name]
        self.rng = rng
        self.scale = 1 if self.word_letters else 3

    def unit(self):
        return "".join(self.rng.choice(self.alphabet) for _ in range(self.word_letters or 1))

    def units(self, number):
        return [self.unit() for _ in range(number * self.scale)]

    def text(self, units):
        return (" " if self.word_letters else "").join(units)

    def edited(self, units, edits):
        units = list(units)
        for place in self.rng.sample(range(len(units)), edits):
            units[place] = self.unit()
        return units


def make_families():
    """Return (kind, texts) of each family; texts of two families have nothing in common."""
    rng = random.Random(20)
    for name in SCRIPTS:
        script = Script(name, rng)
        for edits in (1, 2, 3, 4, 6, 9, 14):
            base = script.units(rng.randrange(80, 260))
            copies = [script.edited(base, edits) for _ in range(3)]
            yield "edits", [script.text(units) for units in (base, *copies)]
        base = script.units(400)
        step = len(base) // 20
        yield "chain", [script.text(base[n * step : n * step + len(base) // 2]) for n in range(10)]
        base = script.units(200)
        cuts = [len(base) * share // 100 for share in (100, 95, 90, 85, 75, 50, 20)]
        yield "containment", [script.text(base[:cut]) for cut in cuts]
        for _ in range(15):
            base = script.units(3)
            other = [*base[:-1], script.unit()]
            yield "short", [script.text(base), f"{script.text(base)}!", script.text(other)]
        for _ in range(15):
            yield "unique", [script.text(script.units(rng.randrange(20, 200)))]
        base = script.text(script.units(120))
        variants = [unicodedata.normalize("NFD", base), base.upper(), f"\ufeff{base}\r\n"]
        yield "unicode", [unicodedata.normalize("NFC", base), *variants]
        if any(len(letter) > 1 for letter in script.alphabet):
            text = script.text(script.units(100))
            decomposed = unicodedata.normalize("NFD", text)
            yield "marks", [text, "".join(c for c in decomposed if not is_mark(c))]
    latin = Script("Latn", rng)
    base = latin.units(250)
    yield "giant", [latin.text(latin.edited(base, rng.randrange(1, 5))) for _ in range(400)]
    for name in ("Latn", "Cyrl", "Deva", "Hani", "Thai"):
        script = Script(name, rng)
        base = script.units(600)
        half = len(base) // 2
        pages = [[*base[:half], *script.units(26), *base[half:]] for _ in range(50)]
        yield "template", [script.text(page) for page in pages]


def is_mark(character):
    return unicodedata.category(character)[0] == "M"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Families of texts, and what became of every text."""
    folder = tmp_path_factory.mktemp("truth")
    families = list(make_families())
    rows = [
        {"id": f"{number}/{place}", "text": text, "language": "en"}
        for number, (_, texts) in enumerate(families)
        for place, text in enumerate(texts)
    ]
    random.Random(0).shuffle(rows)
    for half in (0, 1):
        lines = "".join(json.dumps(row) + "\n" for row in rows[half::2])
        (folder / f"{half}.jsonl").write_text(lines)
    dedup_files([str(folder)], folder / "out", workers=1, console=Console(file=io.StringIO()))
    verdicts = {}
    for path in (folder / "out" / "verdicts").glob("*.parquet"):
        verdicts |= {row["input_id"]: row for row in pq.read_table(path).to_pylist()}
    assert len(verdicts) == len(rows)
    return families, [
        [verdicts[f"{number}/{place}"] for place in range(len(texts))]
        for number, (_, texts) in enumerate(families)
    ]


def test_no_unique_document_is_lost(corpus):
    """Every removed text is alike to the kept text that its verdict names, of its own family."""
    lost = []
    for (kind, texts), verdicts in zip(*corpus, strict=True):
        kept = {row["id"]: text for text, row in zip(texts, verdicts, strict=True) if row["kept"]}
        for text, row in zip(texts, verdicts, strict=True):
            if row["kept"]:
                continue
            similarity = jaccard(text, kept.get(row["duplicate_of"], ""))
            is_same = row["reason"] == "exact_duplicate" or row["jaccard"] == similarity
            if similarity < 0.8 or not is_same or kind in ("unique", "template"):
                lost.append((kind, text[:50], row["reason"], similarity))

    assert lost == []


@pytest.mark.parametrize("kinds", [("edits", "short", "unicode"), ("chain", "containment"),
                                   ("giant",)])  # fmt: skip
def test_pairs_at_the_threshold_are_found(corpus, kinds):
    similar = found = 0
    for (kind, texts), verdicts in zip(*corpus, strict=True):
        if kind not in kinds:
            continue
        pairs = list(itertools.combinations(range(len(texts)), 2))
        for left, right in pairs if len(pairs) < 1000 else pairs[::37]:
            if jaccard(texts[left], texts[right]) >= 0.8:
                similar += 1
                found += not (verdicts[left]["kept"] and verdicts[right]["kept"])

    assert similar > 100
    assert found / similar >= 0.97


def test_texts_equal_but_for_their_marks_are_kept_where_marks_make_them_different(corpus):
    checked = 0
    for (kind, texts), verdicts in zip(*corpus, strict=True):
        if kind == "marks":
            assert jaccard(*texts) < 0.8
            assert [row["kept"] for row in verdicts] == [True, True]
            checked += 1

    assert checked >= 10


def test_unicode_variants_of_a_text_are_one_document(corpus):
    for (kind, _), verdicts in zip(*corpus, strict=True):
        if kind == "unicode":
            assert sum(row["kept"] for row in verdicts) == 1
            assert {row["cluster_size"] for row in verdicts} == {4}


def test_pages_of_one_template_reach_the_threshold_and_are_kept(corpus):
    for (kind, texts), verdicts in zip(*corpus, strict=True):
        if kind == "template":
            assert jaccard(texts[0], texts[1]) >= 0.8
            assert all(row["kept"] for row in verdicts)


def test_one_giant_cluster_leaves_few_documents_that_differ(corpus):
    for (kind, _), verdicts in zip(*corpus, strict=True):
        if kind == "giant":
            assert 1 <= sum(row["kept"] for row in verdicts) < 40
