"""Arrays on disk: an array in, a .npy file that is whole or not there out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..indexed_dataset.atomic import atomic_path


def save_array(path: Path, array: NDArray[Any]) -> Path:
    """Write an array as .npy, whole or not at all.

    Raises:
        DiskFullError: no space left. (`np.save` would raise an OSError that does not say so.)
    """
    array = np.ascontiguousarray(array)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)
    return path
