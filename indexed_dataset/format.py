r"""The bytes of PREFIX.idx and PREFIX.bin: Megatron's MMIDIDX, version 1.

In: counts and arrays. Out: header bytes, and checks of what a header and its arrays claim.

PREFIX.bin is the token ids of all sequences back to back in one dtype: no header, no padding.
PREFIX.idx, everything little-endian, N sequences, D = number of documents + 1:

    offset        size  type   content
    0             9     bytes  magic "MMIDIDX\0\0"
    9             8     u64    version, always 1
    17            1     u8     dtype code: 1 u8, 2 i8, 3 i16, 4 i32, 5 i64, 6 f64, 7 f32, 8 u16
    18            8     u64    N
    26            8     u64    D (one more than there are documents)
    34            4N    i32    sequence_lengths, in tokens
    34+4N         8N    i64    sequence_pointers, byte offset of each sequence in PREFIX.bin
    34+12N        8D    i64    document_indices: first sequence of each document, then N
    34+12N+8D     N     i8     sequence_modes, only in multimodal files (the size tells)

The arrays start at byte 34, so they are never aligned: copy them before handing them to a kernel.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .errors import (
    CorruptIndexError,
    IndexedDatasetError,
    NotAnIndexError,
    UnsupportedVersionError,
)

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER_BYTES = 34
MAX_SEQUENCE_TOKENS = 2**31 - 1
"""Sequence lengths are int32."""

_HEADER = struct.Struct("<9sQBQQ")

DTYPE_OF_CODE: dict[int, np.dtype[Any]] = {
    1: np.dtype("u1"),
    2: np.dtype("i1"),
    3: np.dtype("<i2"),
    4: np.dtype("<i4"),
    5: np.dtype("<i8"),
    6: np.dtype("<f8"),
    7: np.dtype("<f4"),
    8: np.dtype("<u2"),
}
CODE_OF_DTYPE = {dtype: code for code, dtype in DTYPE_OF_CODE.items()}

_CHECK_CHUNK = 1 << 20  # sequences looked at in one go, so that a check needs a few tens of MB


class Header(NamedTuple):
    """The first 34 bytes of an .idx file."""

    dtype: np.dtype[Any]
    num_sequences: int
    num_document_indices: int

    @property
    def index_bytes(self) -> int:
        """Size of the .idx file without sequence modes."""
        return HEADER_BYTES + 12 * self.num_sequences + 8 * self.num_document_indices


def storage_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return `dtype` as it is stored (little-endian), or say which dtypes the format has.

    Example: storage_dtype("uint16") == np.dtype("<u2").
    """
    wanted = np.dtype(dtype).newbyteorder("<")
    if wanted not in CODE_OF_DTYPE:
        names = ", ".join(d.name for d in DTYPE_OF_CODE.values())
        raise IndexedDatasetError(
            f"dtype {np.dtype(dtype).name} cannot be stored: the format has no code for it. "
            f"Use one of {names} (there is no uint32: int32 holds every id up to 2**31 - 1)"
        )
    return wanted


def dtype_for_vocab_size(vocab_size: int) -> np.dtype[Any]:
    """Return uint16 below 65,500 ids, else int32: Megatron's rule, so that its readers agree."""
    if vocab_size < 1:
        raise IndexedDatasetError(f"vocab_size is {vocab_size}: a vocabulary has at least one id")
    if vocab_size > 2**31:
        raise IndexedDatasetError(f"vocab_size is {vocab_size}: ids above 2**31 - 1 do not fit")
    return np.dtype("<u2") if vocab_size < 65_500 else np.dtype("<i4")


def pack_header(dtype: DTypeLike, num_sequences: int, num_document_indices: int) -> bytes:
    """Return the 34 bytes that open an .idx file."""
    code = CODE_OF_DTYPE[storage_dtype(dtype)]
    return _HEADER.pack(MAGIC, VERSION, code, num_sequences, num_document_indices)


def unpack_header(data: bytes, path: Path) -> Header:
    """Return what the first bytes of the .idx file at `path` say.

    Raises:
        NotAnIndexError: other magic, or shorter than a header.
        UnsupportedVersionError: another version of the format.
        CorruptIndexError: an unknown dtype code, or no document bound at all.
    """
    if data[:9] != MAGIC[: len(data[:9])] or not data:
        raise NotAnIndexError(
            f"{path} is not an indexed dataset: it starts with {bytes(data[:9])!r} instead of "
            f"{MAGIC!r}. Give the prefix of a .bin/.idx pair"
        )
    if len(data) < HEADER_BYTES:
        raise NotAnIndexError(
            f"{path} ends after {len(data)} of the {HEADER_BYTES} bytes of its header: it was cut "
            "off. Write the dataset again, or copy it again"
        )
    _, version, code, num_sequences, num_document_indices = _HEADER.unpack_from(data)
    if version != VERSION:
        raise UnsupportedVersionError(
            f"{path} has format version {version}; only version {VERSION} exists. "
            "The file is damaged or was written by something else: write or copy it again"
        )
    if code not in DTYPE_OF_CODE:
        raise CorruptIndexError(
            f"{path} has dtype code {code}; known are 1 to 8. The header is damaged: "
            "write or copy the dataset again"
        )
    if num_document_indices < 1:
        raise CorruptIndexError(
            f"{path} has no document bounds (their count is 0, and even an empty dataset has 1). "
            "The header is damaged: write or copy the dataset again"
        )
    return Header(DTYPE_OF_CODE[code], num_sequences, num_document_indices)


def check_index_arrays(
    lengths: NDArray[np.int32],
    pointers: NDArray[np.int64],
    document_indices: NDArray[np.int64],
    itemsize: int,
    path: Path,
) -> None:
    """Check every entry of the arrays of an .idx file, in bounded memory.

    Args:
        lengths: int32[num_sequences], tokens of each sequence.
        pointers: int64[num_sequences], byte offset of each sequence.
        document_indices: int64[num_documents + 1], first sequence of each document.
        itemsize: bytes of one token.
        path: the .idx file, for the message.

    Raises:
        CorruptIndexError: names the first entry that contradicts the others.
    """
    remedy = "The index is damaged: write or copy the dataset again"
    num_sequences = len(lengths)
    expected = 0
    for first in range(0, num_sequences, _CHECK_CHUNK):
        chunk = np.asarray(lengths[first : first + _CHECK_CHUNK], dtype=np.int64)
        if (chunk < 0).any():
            bad = first + int(np.argmax(chunk < 0))
            raise CorruptIndexError(
                f"{path}: sequence {bad} has length {int(lengths[bad])}. {remedy}"
            )
        ends = expected + np.cumsum(chunk) * itemsize
        starts = ends - chunk * itemsize
        wrong = np.asarray(pointers[first : first + _CHECK_CHUNK]) != starts
        if wrong.any():
            bad = int(np.argmax(wrong))
            raise CorruptIndexError(
                f"{path}: sequence {first + bad} is said to start at byte "
                f"{int(pointers[first + bad])}, but the sequences before it end at byte "
                f"{int(starts[bad])}. {remedy}"
            )
        expected = int(ends[-1])
    for first in range(0, len(document_indices), _CHECK_CHUNK):
        bounds = np.asarray(document_indices[max(first - 1, 0) : first + _CHECK_CHUNK])
        falls = np.diff(bounds) < 0
        if falls.any():
            bad = max(first - 1, 0) + int(np.argmax(falls))
            raise CorruptIndexError(
                f"{path}: document {bad} ends at sequence {int(document_indices[bad + 1])}, before "
                f"its first sequence {int(document_indices[bad])}. {remedy}"
            )
    check_document_ends(int(document_indices[0]), int(document_indices[-1]), num_sequences, path)


def check_document_ends(first: int, last: int, num_sequences: int, path: Path) -> None:
    """Check that the documents start at sequence 0 and end at the last one."""
    if first != 0 or last != num_sequences:
        raise CorruptIndexError(
            f"{path}: its documents span the sequences {first} to {last}, but it has the sequences "
            f"0 to {num_sequences}. The index is damaged: write or copy the dataset again"
        )
