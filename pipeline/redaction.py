"""Texts flow in, the same with e-mail addresses and public IP addresses replaced flow out.

Candidates are found in whole buffers (a byte `@`, digits around full stops, two colons), so most
texts are not looked at one by one. Addresses that identify nobody stay: private, loopback, link-
local, reserved and documentation ranges, as Python's `ipaddress` knows them.
"""

from __future__ import annotations

import ipaddress
import re

import numpy as np
from numpy.typing import NDArray

from .text_config import RedactionConfig

# RFC 5322's dot-atoms without its comments and quotes, before a domain with a top level of letters.
# Bounded repetitions: a megabyte without a space costs no more than its length.
_EMAIL = re.compile(
    rb"(?<![\w.!#$%&'*+/=?^`{|}~-])[\w!#$%&'*+/=?^`{|}~-][\w.!#$%&'*+/=?^`{|}~-]{0,63}"
    rb"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}(?![\w-]|\.\w)"
)
_IPV4 = re.compile(rb"(?<![\w.:-])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![\w-]|\.[0-9])")
# Three colons at least, or C++ names such as a::b would be addresses.
_IPV6 = re.compile(rb"(?<![\w.:])(?:[0-9A-Fa-f]{0,4}:){3,7}[0-9A-Fa-f]{0,4}(?![\w:])")


class Redactor:
    """Replaces addresses in batches of texts and counts them."""

    def __init__(self, config: RedactionConfig) -> None:
        self._config = config
        self.counts = {"emails": 0, "ip_addresses": 0}

    @property
    def is_on(self) -> bool:
        """Whether anything is replaced at all."""
        return self._config.emails or self._config.ip_addresses

    def candidates(self, data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the numbers of texts that may hold an address, ascending; never too few."""
        places = [np.empty(0, np.int64)]
        if self._config.emails:
            places.append(np.flatnonzero(data == ord("@")))
        if self._config.ip_addresses:
            for mark in b".:":
                marks = np.flatnonzero(data[:-1] == mark)
                after = data[marks + 1]
                is_digit = (after >= ord("0")) & (after <= ord("9")) | (after == ord(":"))
                if mark == ord(":"):
                    lower = after | 32
                    is_digit |= (lower >= ord("a")) & (lower <= ord("f"))
                places.append(marks[is_digit])
        found = np.concatenate(places)
        return np.unique(np.searchsorted(offsets, found, side="right") - 1)

    def __call__(self, text: bytes) -> bytes:
        """Return a text (UTF-8) with placeholders."""
        if self._config.emails and b"@" in text:
            text, count = _EMAIL.subn(lambda _: self._config.email_placeholder.encode(), text)
            self.counts["emails"] += count
        if self._config.ip_addresses:
            text = _IPV4.sub(self._replace_address, text)
            text = _IPV6.sub(self._replace_address, text)
        return text

    def _replace_address(self, match: re.Match[bytes]) -> bytes:
        found = match.group()
        try:
            address = ipaddress.ip_address(found.decode())
        except ValueError:
            return found
        if not address.is_global:
            return found
        self.counts["ip_addresses"] += 1
        return self._config.ip_placeholder.encode()
