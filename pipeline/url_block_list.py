"""Files of domains and URL parts flow in, which URLs are blocked flows out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

MAX_EXPRESSION_PARTS = 20_000


class UrlBlockList:
    """Domains (with their subdomains) and parts of URLs that are not wanted."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._domains: set[str] = set()
        parts: list[str] = []
        for entry in entries:
            entry = entry.partition("#")[0].strip().lower()
            if "/" in entry:
                parts.append(entry)
            elif entry:
                self._domains.add(entry.removeprefix("*.").removeprefix("www.").strip("."))
        self._parts = [
            re.compile("|".join(map(re.escape, parts[start : start + MAX_EXPRESSION_PARTS])))
            for start in range(0, len(parts), MAX_EXPRESSION_PARTS)
        ]

    @classmethod
    def read(cls, paths: Sequence[str]) -> UrlBlockList:
        """Read lists from files, one entry a line.

        Raises:
            ValueError: a file cannot be read.
        """
        entries: list[str] = []
        for path in paths:
            try:
                entries += Path(path).read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(
                    f"the block list {path} cannot be read ({error}): filters.url_block_list "
                    "names text files with a domain or a part of a URL a line"
                ) from error
        return cls(entries)

    def blocks(self, url: str | None) -> bool:
        """Say whether a URL is blocked; no URL is not."""
        if not url:
            return False
        url = url.lower()
        host = url.partition("://")[2] or url
        host = re.split(r"[/?#]", host, maxsplit=1)[0].rpartition("@")[2].partition(":")[0]
        labels = host.strip(".").split(".")
        if any(".".join(labels[start:]) in self._domains for start in range(len(labels))):
            return True
        return any(expression.search(url) for expression in self._parts)
