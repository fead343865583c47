"""What can be wrong with a dataset, one class a mistake, one common base.

Every message says what was met, what follows from it and what to do, with the file and values.
A full disk is `atomic.DiskFullError` (an OSError): nothing is wrong with the dataset then.
"""

from __future__ import annotations


class IndexedDatasetError(ValueError):
    """Something is wrong with an indexed dataset, its files or how it is asked for."""


class PrefixNotFoundError(IndexedDatasetError, FileNotFoundError):
    """A file of the prefix does not exist."""

    # OSError composes its text from (errno, strerror, filename); ours is already a sentence.
    __str__ = ValueError.__str__


class PrefixExistsError(IndexedDatasetError):
    """A dataset would be written over one that exists."""


class PrefixBusyError(IndexedDatasetError):
    """Another process is writing the same prefix at this moment."""


class NotAnIndexError(IndexedDatasetError):
    """The .idx file is not an index of this format at all."""


class UnsupportedVersionError(IndexedDatasetError):
    """The .idx file has another version of the format, or the manifest another schema."""


class CorruptIndexError(IndexedDatasetError):
    """The .idx file contradicts itself."""


class TruncatedDataError(IndexedDatasetError):
    """The .bin file does not hold exactly the tokens that the index describes."""


class TokenRangeError(IndexedDatasetError):
    """A token id does not fit the vocabulary or the dtype of the file."""


class ManifestError(IndexedDatasetError):
    """PREFIX.json is unreadable or contradicts the files it describes."""


class TokenizerMismatchError(IndexedDatasetError):
    """Datasets made with different tokenizers were put together."""


class UnknownOrderError(IndexedDatasetError):
    """A sample order, or a way to treat documents, was asked for that is not offered."""


class DocumentNotFoundError(IndexedDatasetError):
    """A document that was to be dropped is in none of the datasets."""


class RepairError(IndexedDatasetError):
    """An index cannot be made again; nothing was written."""
