"""Every public kernel has a twin and a test that compares the two."""

import ast
import inspect
from pathlib import Path

import pytest

from gristmill import kernels
from gristmill.kernels import reference


@pytest.mark.parametrize("name", sorted(kernels.PUBLIC_KERNELS))
def test_each_public_kernel_has_a_twin_with_the_same_signature(name):
    kernel, twin = getattr(kernels, name), getattr(reference, name)

    assert kernel is not twin
    assert twin.__module__.startswith("gristmill.kernels.reference.")
    mine, theirs = inspect.signature(kernel), inspect.signature(twin)
    assert list(mine.parameters) == list(theirs.parameters)
    assert [p.default for p in mine.parameters.values()] == [
        p.default for p in theirs.parameters.values()
    ]


def test_each_public_kernel_is_compared_with_its_twin_by_hypothesis():
    compared = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(function, ast.FunctionDef):
                continue
            decorators = " ".join(ast.unparse(node) for node in function.decorator_list)
            if "given" not in decorators:
                continue
            names = [
                (node.value.id, node.attr)
                for node in ast.walk(function)
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
            ]
            compared |= {
                name
                for name in kernels.PUBLIC_KERNELS
                if ("kernels", name) in names and ("reference", name) in names
            }

    assert compared == set(kernels.PUBLIC_KERNELS)


def test_all_public_kernels_are_listed_and_an_unknown_name_is_refused():
    assert set(kernels.PUBLIC_KERNELS) < set(dir(kernels))
    with pytest.raises(AttributeError, match="no attribute 'hash_everything'"):
        _ = kernels.hash_everything


def test_warm_kernels_calls_every_public_kernel(monkeypatch):
    from gristmill.kernels import warm

    called = set()
    for name in kernels.PUBLIC_KERNELS:
        function = getattr(warm, name)

        def spy(*arguments, name=name, function=function):
            called.add(name)
            return function(*arguments)

        monkeypatch.setattr(warm, name, spy)
    kernels.warm_kernels()

    assert called == set(kernels.PUBLIC_KERNELS)


@pytest.mark.parametrize(("part", "files"), [("dedup", "dedup*.py"), ("passages", "passage*.py")])
def test_warming_a_part_calls_the_kernels_that_it_works_with_and_no_tokenizer(
    monkeypatch, part, files
):
    from gristmill.kernels import warm

    folder = Path(kernels.__file__).parents[1] / "pipeline"
    sources = "".join(path.read_text() for path in folder.glob(files))
    wanted = {name for name in kernels.PUBLIC_KERNELS if f"kernels.{name}(" in sources}
    called = set()
    for name in kernels.PUBLIC_KERNELS:
        function = getattr(warm, name)

        def spy(*arguments, name=name, function=function):
            called.add(name)
            return function(*arguments)

        monkeypatch.setattr(warm, name, spy)
    kernels.warm_kernels(part)

    assert wanted
    assert wanted <= called
    assert not [name for name in called if kernels.PUBLIC_KERNELS[name].startswith("tokenizer.")]
