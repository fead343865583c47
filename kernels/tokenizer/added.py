r"""Added tokens in a text: segments and a trie flow in, finer segments flow out.

As `tokenizers` 0.23 does it: the leftmost match, the longest of several, and the search goes on
behind it. A match that `single_word` refuses (a word character on either side) is text, yet the
search goes on behind it all the same. `lstrip` and `rstrip` take the white space beside a match,
`lstrip` not beyond the match before. Each segment is searched by itself.

The trie has a slot for each (node, byte): open addressing, `(node << 8 | byte) + 1` in `edges[2i]`
and the child in `edges[2i + 1]`. Node 0 is the root.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..jit import borrowing_kernel as kernel
from ..jit import inner_kernel as inner
from .intrinsics import equal64, trailing_zeros
from .scan import class_at

SINGLE_WORD, LSTRIP, RSTRIP, IGNORED = 1, 2, 4, 8
MOST_FIRST_BYTES = 4
"""Up to so many different first bytes are looked for 64 bytes at a time."""

_SPACE, _WORD = np.int64(8), np.int64(512)
_0, _1 = np.uint64(0), np.uint64(1)
_FACTOR = np.int64(0x9E3779B1)


class TokenTrie(NamedTuple):
    """The added tokens that are looked for; arrays are read-only."""

    first_bytes: Any  # uint8[n]: the first bytes, if at most MOST_FIRST_BYTES of them; else empty
    begins: Any  # bool[256]: whether some token begins with this byte
    edges: Any  # int64[2 * power of two]
    tokens: Any  # int32[num_nodes]: index of the token that ends here, or -1
    ids: Any  # int32[num_tokens]
    flags: Any  # uint8[num_tokens]: SINGLE_WORD | LSTRIP | RSTRIP | IGNORED (a match is text)


@kernel
def trie_slot(edge: Any, mask: Any) -> Any:
    """Return the slot where the search for an edge begins."""
    return (edge * _FACTOR >> np.int64(7)) & mask


@kernel
def next_candidate(data: Any, at: Any, end: Any, trie: Any) -> Any:
    """Return the first place from `at` where an added token may begin, `end` if there is none."""
    if len(trie.first_bytes) == 0:
        while at < end and not trie.begins[data[at]]:
            at += 1
        return at
    while at < end:
        found = _0
        for i in range(len(trie.first_bytes)):
            found |= equal64(data, at, trie.first_bytes[i])
        if found:
            return min(at + trailing_zeros(found), end)
        at += 64
    return end


@inner
def _longest_match(data: Any, at: Any, end: Any, trie: Any) -> Any:
    """Return (index of the token, its end), (-1, at) if none begins at data[at]."""
    mask = np.int64(len(trie.edges)) // 2 - 1
    node, token, stop = np.int64(0), np.int64(-1), at
    while at < end:
        edge = (node << 8 | np.int64(data[at])) + 1
        slot = trie_slot(edge, mask)
        while trie.edges[2 * slot] != edge:
            if trie.edges[2 * slot] == 0:
                return token, stop
            slot = (slot + 1) & mask
        node = trie.edges[2 * slot + 1]
        at += 1
        if trie.tokens[node] >= 0:
            token, stop = np.int64(trie.tokens[node]), at
    return token, stop


@inner
def _before(data: Any, begin: Any, at: Any) -> Any:
    """Return where the code point before data[at] begins."""
    at -= 1
    while at > begin and data[at] & 0xC0 == 0x80:
        at -= 1
    return at


@kernel
def find_added_tokens(
    data: Any,
    starts: Any,
    ends: Any,
    tokens: Any,
    first: Any,
    stage1: Any,
    stage2: Any,
    trie: Any,
    out_starts: Any,
    out_ends: Any,
    out_tokens: Any,
    out_first: Any,
    counts: Any,
) -> Any:
    """Cut segments at the added tokens in them; return the number of new segments, -1: no room.

    Args:
        data: uint8[n], readable for 64 bytes behind the last segment.
        starts, ends, tokens, first: the segments (`pipeline.engine.frame`).
        stage1, stage2: classes of code points.
        trie: the tokens.
        out_starts, out_ends, out_tokens, out_first: the new segments, filled.
        counts: int64[num_segments], how many each old one has become, filled.
    """
    total = np.int64(0)
    room = np.int64(len(out_starts)) - 3
    for segment in range(len(starts)):
        begin, end = np.int64(starts[segment]), np.int64(ends[segment])
        before = total
        if total >= room:
            return np.int64(-1)
        text = begin  # where the text begins that no match has taken yet
        at = begin if tokens[segment] < 0 else end
        while at < end:
            at = next_candidate(data, at, end, trie)
            if at >= end:
                break
            token, stop = _longest_match(data, at, end, trie)
            if token < 0:
                at += 1
                continue
            start, at = at, stop
            flags = trie.flags[token]
            if flags & IGNORED:
                continue
            if flags & SINGLE_WORD:
                bits = np.int64(0)
                if start > begin:
                    bits, _ = class_at(data, _before(data, begin, start), stage1, stage2)
                if stop < end:
                    behind, _ = class_at(data, stop, stage1, stage2)
                    bits |= behind
                if bits & _WORD:
                    continue
            if flags & LSTRIP:
                while start > begin:
                    earlier = _before(data, begin, start)
                    bits, _ = class_at(data, earlier, stage1, stage2)
                    if bits & _SPACE == 0:
                        break
                    start = earlier
                start = max(start, text)
            if flags & RSTRIP:
                while stop < end:
                    bits, size = class_at(data, stop, stage1, stage2)
                    if bits & _SPACE == 0:
                        break
                    stop += size
            if total >= room:
                return np.int64(-1)
            if text < start:
                out_starts[total], out_ends[total] = text, start
                out_tokens[total] = np.int32(-1)
                out_first[total] = first[segment] if text == begin else np.uint8(0)
                total += 1
            out_starts[total], out_ends[total] = start, stop
            out_tokens[total] = trie.ids[token]
            out_first[total] = np.uint8(0)
            total += 1
            text = stop
        if tokens[segment] >= 0 or text < end or begin == end:
            out_starts[total], out_ends[total] = text, end
            out_tokens[total] = tokens[segment]
            out_first[total] = first[segment] if text == begin else np.uint8(0)
            total += 1
        counts[segment] = total - before
    return total
