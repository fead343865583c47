"""Indexed datasets: Megatron's .bin/.idx, written, read, checked, sampled and blended.

Reading and sampling need numpy alone, but for a `MegatronBlend`, the order "best_fit" and
`Masking`, which need numba. The names below are the whole public surface; what is not needed for
reading is imported when it is first used.

    IndexedDatasetBuilder ─► PREFIX.{bin,idx,json} ─► IndexedDataset
                                     └─► SampleDataset ─► BlendedDataset ─► PhasedBlend
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .blend import BlendedDataset as BlendedDataset
from .blend_description import describe_phases as describe_phases
from .describe import describe as describe
from .errors import CorruptIndexError as CorruptIndexError
from .errors import DocumentNotFoundError as DocumentNotFoundError
from .errors import IndexedDatasetError as IndexedDatasetError
from .errors import ManifestError as ManifestError
from .errors import NotAnIndexError as NotAnIndexError
from .errors import PrefixBusyError as PrefixBusyError
from .errors import PrefixExistsError as PrefixExistsError
from .errors import PrefixNotFoundError as PrefixNotFoundError
from .errors import RepairError as RepairError
from .errors import TokenizerMismatchError as TokenizerMismatchError
from .errors import TokenRangeError as TokenRangeError
from .errors import TruncatedDataError as TruncatedDataError
from .errors import UnknownOrderError as UnknownOrderError
from .errors import UnsupportedVersionError as UnsupportedVersionError
from .format import dtype_for_vocab_size as dtype_for_vocab_size
from .groups import open_groups as open_groups
from .manifest import Checksums as Checksums
from .manifest import DatasetManifest as DatasetManifest
from .manifest import SideStreamEntry as SideStreamEntry
from .masked import Masking as Masking
from .megatron_blend import MegatronBlend as MegatronBlend
from .megatron_order import MegatronOptions as MegatronOptions
from .object_store import ObjectStoreError as ObjectStoreError
from .paths import find_prefixes as find_prefixes
from .paths import shard_name as shard_name
from .phases import Phase as Phase
from .phases import PhasedBlend as PhasedBlend
from .read_ahead import read_in_order as read_in_order
from .reader import IndexedDataset as IndexedDataset
from .samples import Sample as Sample
from .samples import SampleDataset as SampleDataset
from .state import BlendState as BlendState
from .state import DataChangedError as DataChangedError
from .verify import VerifyReport as VerifyReport
from .verify import verify as verify
from .weights import language_of as language_of
from .weights import manifest_repeat as manifest_repeat
from .weights import manifest_weight as manifest_weight
from .weights import temperature_weights as temperature_weights
from .weights import whole_weights as whole_weights

if TYPE_CHECKING:  # the same names as in _LATER
    from .dividing import DividedPart as DividedPart
    from .dividing import divide as divide
    from .dropping import DocumentFacts as DocumentFacts
    from .megatron_builder import build_megatron_blend as build_megatron_blend
    from .merging import MergeReport as MergeReport
    from .merging import merge as merge
    from .provenance import Passage as Passage
    from .provenance import passages as passages
    from .repairing import RepairReport as RepairReport
    from .repairing import repair as repair
    from .side_streams import SideStream as SideStream
    from .writer import IndexedDatasetBuilder as IndexedDatasetBuilder

_LATER = {
    "DividedPart": "dividing",
    "divide": "dividing",
    "DocumentFacts": "dropping",
    "build_megatron_blend": "megatron_builder",
    "MergeReport": "merging",
    "merge": "merging",
    "Passage": "provenance",
    "passages": "provenance",
    "RepairReport": "repairing",
    "repair": "repairing",
    "SideStream": "side_streams",
    "IndexedDatasetBuilder": "writer",
}
"""Name -> its module, for what writes and changes datasets. No module may be named like a name."""


def __getattr__(name: str) -> Any:
    module = _LATER.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
