"""What reading costs: numpy alone, no compiled kernel, nothing of torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

READ = """
import sys
{block}
from gristmill.indexed_dataset import (
    BlendedDataset, IndexedDataset, SampleDataset, describe, find_prefixes, verify
)
dataset = IndexedDataset(sys.argv[1])
assert dataset[0].tolist() == [1, 2, 0]
joined = SampleDataset(dataset, 4, seed=3)
separate = SampleDataset(dataset, 4, order="sequential", documents="separate")
blend = BlendedDataset([joined, joined], [1, 2])
assert "gristmill.indexed_dataset.merging" not in sys.modules
assert len(blend[1]["tokens"]) == len(separate[0]["tokens"]) == 4
assert verify(dataset.prefix, full=True).ok and describe(blend)
print(*sorted({{name.split(".")[0] for name in sys.modules}}))
"""
HEAVY = (
    "numba",
    "llvmlite",
    "torch",
    "pyarrow",
    "tokenizers",
    "datasets",
    "msgspec",
    "rich",
    "scipy",
)
BLOCK = f"for name in {HEAVY!r}: sys.modules[name] = None"


@pytest.mark.parametrize("block", ["", BLOCK], ids=["installed", "missing"])
def test_reading_samples_imports_numpy_and_nothing_heavy(write_prefix, block):
    prefix = write_prefix([[1, 2, 0], [3, 0], [4, 5, 0]])
    result = subprocess.run(
        [sys.executable, "-c", READ.format(block=block), str(prefix)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    loaded = set(result.stdout.split())
    assert "numpy" in loaded
    if not block:
        assert not loaded & set(HEAVY)


def test_the_public_names_are_pinned():
    import gristmill.indexed_dataset as room

    public = {
        name
        for name, value in ((name, getattr(room, name)) for name in dir(room))
        if not name.startswith("_") and getattr(value, "__module__", "").startswith(room.__name__)
    }
    assert public == {
        *("BlendedDataset", "Checksums", "DatasetManifest", "IndexedDataset"),
        *("IndexedDatasetBuilder", "Sample", "SampleDataset", "VerifyReport"),
        *("describe", "dtype_for_vocab_size", "find_prefixes", "shard_name"),
        *("temperature_weights", "verify"),
        *("BlendState", "Passage", "Phase", "PhasedBlend", "describe_phases", "language_of"),
        *(
            "manifest_repeat",
            "manifest_weight",
            "open_groups",
            "passages",
            "whole_weights",
            "DataChangedError",
        ),
        *("DividedPart", "DocumentFacts", "MergeReport", "RepairReport", "SideStream"),
        *("SideStreamEntry", "divide", "merge", "repair", "Masking"),
        *("DocumentNotFoundError", "RepairError"),
        *("CorruptIndexError", "IndexedDatasetError", "ManifestError", "NotAnIndexError"),
        *("PrefixBusyError", "PrefixExistsError", "PrefixNotFoundError", "TokenRangeError"),
        *("TokenizerMismatchError", "TruncatedDataError", "UnknownOrderError"),
        *("MegatronBlend", "MegatronOptions", "build_megatron_blend"),
        *("UnsupportedVersionError", "ObjectStoreError", "read_in_order"),
    }


def test_names_that_are_imported_when_first_used_are_those_that_type_checkers_see():
    import gristmill.indexed_dataset as room

    tree = ast.parse(Path(room.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    assert {node.names[0].name: node.module for node in block.body} == room._LATER
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        room.nothing  # noqa: B018


def test_every_error_of_the_room_has_the_common_base():
    import gristmill.indexed_dataset as room

    errors = [value for name, value in vars(room).items() if name.endswith("Error")]
    assert len(errors) > 10
    for error in errors:
        assert issubclass(error, room.IndexedDatasetError)
        assert issubclass(error, ValueError)
