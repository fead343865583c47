"""Finding strings in JSON lines and resolving their escapes, beside the readable twins."""

import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gristmill import kernels
from gristmill.kernels import reference
from gristmill.kernels.json_lines import ESCAPED, GOOD, LITERAL, OTHER, STRING

KEYS = ["a", "text", "é", ""]
ATOMS = st.sampled_from(
    [
        *['"', "\\", "{", "}", "[", "]", ",", ":", " ", "\t", "\r", "\n", "\x00", "\x1f", "\x7f"],
        *["true", "false", "null", "nul", "0", "-0", "-", "1", "01", "1.5", "1.", ".5", "1e9"],
        *["1e400", "1E-05", "123456789012345678", "1234567890123456789", '"a"', '"text"', '"é"'],
        *['"a":', '"text":"x"', '""', "\\n", "\\u00e9", "\\ud83d\\ude00", "\\ud83d", "\\ude00"],
        *["\\uD83D\\uDE00", "\\ud83dx", "\\x", "\\/", '\\"', "é", "中文字", "😀", "abcdefghijklm"],
        *['{"a":1}', "[[]]", "[1,{}]", "[" * 60, "]" * 60, "[" * 61, '{"a":' * 3],
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), VALUES, max_size=5)


@st.composite
def lines(draw):
    """Return a line: an object as some writer has it, the same spoiled somewhere, or any atoms."""
    if draw(st.booleans()):
        return "".join(draw(st.lists(ATOMS, max_size=12)))
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", "\r: ")]))
    ascii_only = draw(st.booleans())
    line = json.dumps(draw(OBJECTS), ensure_ascii=ascii_only, separators=separators)
    if draw(st.booleans()):
        place = draw(st.integers(0, len(line)))
        length = draw(st.integers(0, 2))
        line = line[:place] + draw(ATOMS | st.just("")) + line[place + length :]
    return line


def as_keys(names):
    raw = [name.encode() for name in names]
    offsets = np.cumsum([0, *map(len, raw)], dtype=np.int64)
    return np.frombuffer(b"".join(raw), np.uint8), offsets


@example(text=["{}", '{"a":{}}', '{"text":[]}', '{"a":1,}', '{"a":"x"} ,', '{"a":1}{'])
@given(text=st.lists(lines(), max_size=4))
def test_what_stands_under_the_keys_of_each_line(text):
    data = np.frombuffer("\n".join(text).encode(errors="replace"), np.uint8)
    keys = as_keys(KEYS)

    got = kernels.find_json_strings(data, *keys)
    expected = reference.find_json_strings(data, *keys)

    for mine, theirs in zip(got[:3], expected[:3], strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)
    good = got[1] == GOOD
    np.testing.assert_array_equal(got[3][good], expected[3][good])


@given(st.lists(lines(), max_size=4))
def test_a_good_line_is_json_and_its_values_are_pythons(text):
    data = np.frombuffer("\n".join(text).encode(errors="replace"), np.uint8)

    offsets, states, kinds, spans = kernels.find_json_strings(data, *as_keys(KEYS))

    for line in np.flatnonzero(states == GOOD):
        row = json.loads(data[offsets[line] : offsets[line + 1] - 1].tobytes())
        for index, key in enumerate(KEYS):
            start, end = spans[line, index]
            kind, raw = kinds[line, index], data[start:end].tobytes().decode()
            if kind in (STRING, ESCAPED):
                assert json.loads(f'"{raw}"') == row[key]
            elif kind in (LITERAL, OTHER):
                assert repr(json.loads(raw)) == repr(row[key])
            else:
                assert row.get(key) is None


@given(st.lists(st.text(max_size=40), max_size=4), st.booleans())
def test_strings_without_their_escapes(texts, ascii_only):
    raw = [json.dumps(text, ensure_ascii=ascii_only).encode("utf-8", "replace") for text in texts]
    data = np.frombuffer(b"".join(raw), np.uint8)
    bounds = np.cumsum([0, *map(len, raw)])
    spans = np.stack([bounds[:-1] + 1, bounds[1:] - 1], axis=1).astype(np.int64).reshape(-1, 2)
    escaped = np.array([b"\\" in one for one in raw], np.bool_)

    text, offsets = kernels.unescape_json(data, spans, escaped)
    twin_text, twin_offsets = reference.unescape_json(data, spans, escaped)

    np.testing.assert_array_equal(offsets, twin_offsets)
    assert text[: offsets[-1]].tobytes() == twin_text[: offsets[-1]].tobytes()
    assert len(text) >= offsets[-1] + 64


@given(st.binary(max_size=60), st.data())
def test_spans_of_anything_stay_within_their_arrays(raw, data):
    places = st.integers(0, len(raw))
    spans = np.array([sorted(data.draw(st.tuples(places, places))) for _ in range(3)], np.int64)

    text, offsets = kernels.unescape_json(np.frombuffer(raw, np.uint8), spans, np.ones(3, np.bool_))

    assert 0 <= offsets[-1] <= len(text) - 64
    assert (np.diff(offsets) >= 0).all()


def test_spans_outside_the_data_are_refused():
    data = np.frombuffer(b"abc", np.uint8)
    for span in [(-1, 2), (0, 4), (2, 1)]:
        with pytest.raises(ValueError, match="outside the data"):
            kernels.unescape_json(data, np.array([span], np.int64), np.zeros(1, np.bool_))
