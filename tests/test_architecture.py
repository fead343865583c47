"""The house rules that a parser can hold: import directions, no prints, files of one sitting."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# The import table of docs/design.md. `lazy`: only inside functions.
ROOMS: dict[str, dict[str, set[str]]] = {
    "kernels": {"ours": set(), "others": {"numpy", "numba", "llvmlite"}},
    "indexed_dataset": {"ours": {"kernels"}, "others": {"numpy", "fsspec", "urllib3"}},
    "pipeline": {
        "ours": {"indexed_dataset", "kernels"},
        "others": {
            "numpy",
            "pyarrow",
            "tokenizers",
            "zstandard",
            "datasets",
            "huggingface_hub",
            "msgspec",
            "rich",
            "langcodes",
            "fasttext",
            "ftfy",
            "jinja2",
            "ray",
        },
    },
    "trainer": {
        "ours": {"indexed_dataset"},
        "others": {
            "torch",
            "numpy",
            "rich",
            "safetensors",
            "tensorboard",
            "tokenizers",
            "wandb",
            "sacrebleu",
            "rouge_score",
        },
    },
}
LAZY = {
    "indexed_dataset": {"kernels", "fsspec", "urllib3"},
    "kernels": set(),
    "pipeline": {"datasets", "fasttext", "ftfy", "ray"},
    "trainer": {"sacrebleu", "rouge_score"},
}
ROOF = {f"gristmill.{path.stem}" for path in ROOT.glob("*.py")} - {"gristmill.__init__"}
ROOF |= {"gristmill.commands"}
TEXT_FILES = {"classifier.py", "sampling.py"}  # trainer files where text is made or read


def files_of(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, bool, int]]:
    """Yield (top-level module or `gristmill.room`, inside a function?, line) of each import."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for node in ast.walk(block)
    }
    depth = len(path.relative_to(ROOT).parts) - 1
    for node in ast.walk(tree):
        lazy = id(node) in inside or id(node) in typing_only
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")[0], lazy, node.lineno
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                yield (node.module or "").split(".")[0], lazy, node.lineno
            elif node.level > depth:  # climbs out of the room
                module = (node.module or "").split(".")[0]
                for name in [module] if module else [alias.name for alias in node.names]:
                    yield f"gristmill.{name}", lazy, node.lineno


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_the_table_allows(room: str) -> None:
    allowed = ROOMS[room]
    for path in files_of(room):
        for module, lazy, line in imports(path):
            where = f"{path.relative_to(ROOT)}:{line} imports {module}"
            if module.startswith("gristmill."):
                name = module.removeprefix("gristmill.")
                assert name in allowed["ours"] | {"__version__"}, where
            else:
                name = module
                standard = module in sys.stdlib_module_names or module == "__future__"
                assert standard or module in allowed["others"], where
            assert lazy or name not in LAZY.get(room, set()), f"{where} outside a function"


def test_only_text_files_of_the_trainer_import_tokenizers() -> None:
    for path in files_of("trainer"):
        if any(module == "tokenizers" for module, _, _ in imports(path)):
            assert path.name in TEXT_FILES, path


def test_no_room_imports_the_roof() -> None:
    for room in ROOMS:
        for path in files_of(room):
            for module, _, line in imports(path):
                assert module not in ROOF, f"{path}:{line}"


@pytest.mark.parametrize("room", ["kernels", "indexed_dataset", "trainer", "pipeline"])
def test_rooms_do_not_print(room: str) -> None:
    for path in files_of(room):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", f"{path.relative_to(ROOT)}:{node.lineno}"


def test_every_file_can_be_read_in_one_sitting() -> None:
    for room in (*ROOMS, "commands", "tests", "benchmarks", "examples", "."):
        for path in sorted(ROOT.glob("*.py")) if room == "." else files_of(room):
            if room != "tests":
                length = len(path.read_text(encoding="utf-8").splitlines())
                assert length <= 400, f"{path.relative_to(ROOT)} has {length} lines"
            assert path.stem not in {"utils", "core", "common", "helpers"}, path


def test_every_module_says_what_flows_in_and_out() -> None:
    for room in ROOMS:
        for path in files_of(room):
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path
