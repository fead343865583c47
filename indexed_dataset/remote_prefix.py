"""A prefix in an object store: a URL in; its .bin by ranges and its other files as copies out."""

from __future__ import annotations

from pathlib import Path

from .errors import PrefixNotFoundError
from .manifest import DatasetManifest
from .object_store import StoredFile, look_up
from .paths import PrefixPaths
from .remote_bin import RemoteBin
from .store_cache import local_copy


class RemotePrefix:
    """The files of one prefix, as they were when it was opened.

    Args:
        prefix: URL without suffix.

    Raises:
        PrefixNotFoundError: .idx or .bin is missing.
        ObjectStoreError: the store does not answer.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        idx, data = self._find(".idx"), self._find(".bin")
        if idx is None or data is None:
            missing, other = (".idx", data) if idx is None else (".bin", idx)
            hint = "Check the address: a prefix is given without suffix"
            if other is not None:
                hint = (
                    f"{other.url} is there, so the copy is incomplete, or is still being made. "
                    "Copy the dataset again"
                )
            raise PrefixNotFoundError(f"there is no file {prefix}{missing}. {hint}")
        self.bin = RemoteBin(data)
        """The tokens."""
        json = self._find(".json")
        manifest_path = self._no_file(".json") if json is None else local_copy(json)
        manifest = DatasetManifest.load(manifest_path)
        checksums = None if manifest is None else manifest.checksums
        self.paths = PrefixPaths(
            bin=Path(data.url),  # for messages: nothing local is read under this name
            idx=local_copy(idx, None if checksums is None else checksums.idx),
            json=manifest_path,
            origin=self._no_file(".origin"),
        )
        """Local copies; see `copy` for what is copied when it is wanted."""

    def copy(self, suffix: str) -> Path:
        """Return the local copy of a file; where the store has none, a path without a file."""
        found = self._find(suffix)
        return self._no_file(suffix) if found is None else local_copy(found)

    def _find(self, suffix: str) -> StoredFile | None:
        try:
            return look_up(self._prefix + suffix)
        except FileNotFoundError:
            return None

    def _no_file(self, suffix: str) -> Path:
        return Path(self._prefix + suffix)
