"""Indexed datasets: Megatron's .bin/.idx, written, read, checked, sampled and blended.

Reading and sampling need numpy alone. The names below are the whole public surface.

    IndexedDatasetBuilder ─► PREFIX.{bin,idx,json} ─► IndexedDataset
                                                            └─► SampleDataset ─► BlendedDataset
"""

from .blend import BlendedDataset as BlendedDataset
from .describe import describe as describe
from .dividing import DividedPart as DividedPart
from .dividing import divide as divide
from .dropping import DocumentFacts as DocumentFacts
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
from .manifest import Checksums as Checksums
from .manifest import DatasetManifest as DatasetManifest
from .manifest import SideStreamEntry as SideStreamEntry
from .merging import MergeReport as MergeReport
from .merging import merge as merge
from .paths import find_prefixes as find_prefixes
from .paths import shard_name as shard_name
from .reader import IndexedDataset as IndexedDataset
from .repairing import RepairReport as RepairReport
from .repairing import repair as repair
from .samples import Sample as Sample
from .samples import SampleDataset as SampleDataset
from .side_streams import SideStream as SideStream
from .verify import VerifyReport as VerifyReport
from .verify import verify as verify
from .weights import temperature_weights as temperature_weights
from .writer import IndexedDatasetBuilder as IndexedDatasetBuilder
