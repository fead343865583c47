"""Damage to the files of a prefix: a healthy prefix and random numbers in, a damaged one out.

Each function in `DAMAGES` changes one file of a prefix in place and returns that file. They are
written against the format's page, not against the reader: what a disk, a copy or an enemy can do.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

HEADER = struct.Struct("<9sQBQQ")
COUNTS = [
    0,
    1,
    2**31 - 1,
    2**31,
    2**31 + 1,
    2**32,
    2**40,
    2**60,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
]
ENTRIES = [0, 1, -1, -2, 2, 2**31 - 1, -(2**31), 2**32, 2**62, 2**63 - 1, -(2**63), -(2**62)]


def deep(depth, opening, closing, middle="1"):
    return opening * depth + middle + closing * depth


# As JSON text, because some have no Python value that json would write.
JSON_VALUES = [
    *("null", "true", "false", "0", "-0", "1", "-1", "7", "1.5", "-1e-300", "1e400", "-1e400"),
    *("NaN", "Infinity", "2147483648", "9223372036854775807", "9223372036854775808"),
    *("18446744073709551616", "9" * 400, "9" * 4000, "9" * 5000, "1" + "0" * 20_000),
    *('""', '"x"', '"../../../etc/passwd"', '"/"', '"\\u0000"', '"\\ud800"', '"\\udfff\\ud800"'),
    *('"uint32"', '"float16"', '"O"', '"<M8[s]"', '"' + "é" * 5000 + '"', '"\\n\\u001b[2J"'),
    *("[]", "[null]", "[1, 2]", '["00"]', '["' + "0" * 32 + '"]', "{}", '{"a": 1}', '{"": {}}'),
    *(deep(40, "[", "]"), deep(90, '{"a":', "}"), deep(400, "[", "]"), deep(700, '{"a":', "}")),
    *(deep(960, "[", "]"), deep(985, "[", "]"), deep(5000, "[", "]"), deep(50_000, "[", "]")),
    *("", "nan", "0x10", "01", "'x'", '"\\ud8"', "[1,]", "\ufeff1"),
]


def change_bytes(random, path):
    """Change, cut, extend, double or swap some bytes."""
    data = bytearray(path.read_bytes())
    if not data:
        path.write_bytes(random.bytes(3))
        return
    place = int(random.integers(len(data)))
    width = int(random.choice([1, 2, 4, 8, 16]))
    piece = data[place : place + width]
    match random.integers(10):
        case 0 | 1:
            data[place] ^= 1 << int(random.integers(8))
        case 2:
            data[place : place + width] = random.bytes(len(piece))
        case 3:
            del data[place:]
        case 4:
            data += random.bytes(width)
        case 5:
            del data[place : place + width]
        case 6:
            data[place : place + width] = b"\xff" * len(piece)
        case 7:
            data[place : place + width] = b"\0" * len(piece)
        case 8:
            data[place:place] = piece
        case 9:
            other = int(random.integers(len(data)))
            data[place], data[other] = data[other], data[place]
    path.write_bytes(data)


def index_bytes(random, prefix):
    path = Path(f"{prefix}.idx")
    change_bytes(random, path)
    return path


def index_header(random, prefix):
    """Announce other counts, with the file as it is or as long as they need (it is sparse)."""
    path = Path(f"{prefix}.idx")
    data = path.read_bytes()
    magic, version, code, sequences, documents = HEADER.unpack_from(data)
    match random.integers(5):
        case 0:
            version = int(random.choice([0, 2, 256, 2**63 - 1]))
        case 1:
            code = int(random.integers(256))
        case 2:
            sequences = int(random.choice(COUNTS[:-2])) + int(random.integers(-2, 3)) * (code > 3)
        case 3:
            documents = int(random.choice(COUNTS[:-2])) + int(random.integers(-2, 3)) * (code > 3)
        case 4:
            sequences = COUNTS[random.integers(len(COUNTS))]
            documents = COUNTS[random.integers(len(COUNTS))]
    sequences, documents = max(sequences, 0), max(documents, 0)
    path.write_bytes(HEADER.pack(magic, version, code, sequences, documents) + data[34:])
    announced = 34 + 12 * sequences + 8 * documents
    if random.integers(2) and announced < 2**44:
        os.truncate(path, announced)
        if documents and random.integers(2):
            with path.open("r+b") as stream:  # so that its documents end where they must
                stream.seek(34 + 12 * sequences)
                stream.write(bytes(8))
                stream.seek(announced - 8)
                stream.write(struct.pack("<q", min(sequences, 2**63 - 1)))
    return path


def index_entry(random, prefix):
    """Set one or two entries of the arrays to values that are out of order or of range."""
    path = Path(f"{prefix}.idx")
    data = bytearray(path.read_bytes())
    sequences, documents = HEADER.unpack_from(data)[3:]
    for _ in range(random.integers(1, 3)):
        number = int(random.integers(max(sequences, 1)))
        offset, kind = (
            (34 + 4 * number, "<i"),
            (34 + 4 * sequences + 8 * number, "<q"),
            (34 + 12 * sequences + 8 * int(random.integers(documents)), "<q"),
        )[random.integers(3)]
        width = struct.calcsize(kind)
        (now,) = struct.unpack_from(kind, data, offset)
        chosen = [now + int(random.integers(-4, 5)), ENTRIES[random.integers(len(ENTRIES))], -now]
        limit = 2 ** (8 * width - 1)
        value = max(min(chosen[random.integers(3)], limit - 1), -limit)
        struct.pack_into(kind, data, offset, value)
    path.write_bytes(data)
    return path


def manifest_bytes(random, prefix):
    path = Path(f"{prefix}.json")
    change_bytes(random, path)
    return path


def manifest_value(random, prefix):
    """Put a value of a wrong kind or size in the place of any value, however deep it lies."""
    path = Path(f"{prefix}.json")
    raw = json.loads(path.read_text())
    parent, key = raw, "schema_version"
    inside = raw
    while isinstance(inside, (dict, list)) and inside:
        keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
        parent, key = inside, keys[random.integers(len(keys))]
        inside = inside[key]
        if random.integers(2):
            break
    match random.integers(8):
        case 0 if isinstance(parent, dict):
            del parent[key]
        case 1 if isinstance(parent, dict):
            parent[f"{key}{'x' * int(random.choice([1, 100_000]))}"] = parent[key]
        case 2:
            other = list(raw)[random.integers(len(raw))]
            parent[key], raw[other] = raw[other], parent[key]
            if parent is not raw:
                raw = json.loads(json.dumps(raw)) if _is_tree(raw) else {}
        case _:
            parent[key] = "\0VALUE"
    text = json.dumps(raw)
    value = JSON_VALUES[random.integers(len(JSON_VALUES))]
    path.write_text(text.replace('"\\u0000VALUE"', value), encoding="utf-8")
    return path


def _is_tree(value):
    try:
        json.dumps(value)
    except ValueError:  # a value became a part of itself
        return False
    return True


def manifest_text(random, prefix):
    """Damage the JSON as a whole: encodings, nesting, doubled keys, several documents."""
    path = Path(f"{prefix}.json")
    text = path.read_text()
    bad = random.bytes(8)
    place = int(random.integers(len(text)))
    path.write_bytes(
        (
            text.encode("utf-16"),
            b"\xef\xbb\xbf" + text.encode(),
            text[:place].encode() + b"\xff\xfe\x80" + text[place:].encode(),
            text[:place].encode() + bad + text[place:].encode(),
            (text[:place] + "[" * int(random.choice([10, 1000, 200_000])) + text[place:]).encode(),
            ("[" * 300_000 + text).encode(),
            (text.rstrip()[:-1] + ', "num_tokens": 3}').encode(),
            (text + text).encode(),
            (text + "\0").encode(),
            f"[{text}]".encode(),
            text.replace("1", "1" * int(random.integers(2, 6000)), 1).encode(),
            text.replace("a", "\\ud83d", 1).encode(),
            b"\0" * int(random.choice([1, 4096])),
        )[random.integers(13)]
    )
    return path


def bin_length(random, prefix):
    """Cut the tokens off, or let something follow them."""
    path = Path(f"{prefix}.bin")
    size = path.stat().st_size
    new = int(random.choice([0, 1, size - 1, size + 1, size + 2, 2 * size, 2**33, 2**42]))
    os.truncate(path, int(random.integers(size)) if random.integers(2) else new)
    return path


def bin_content(random, prefix):
    """Alter bytes of the tokens, their number unchanged."""
    path = Path(f"{prefix}.bin")
    data = bytearray(path.read_bytes())
    for _ in range(int(random.choice([1, 1, 2, 5]))):
        data[int(random.integers(len(data)))] ^= int(random.integers(1, 256))
    path.write_bytes(data)
    return path


def side_file(random, prefix):
    """Change the .origin or a side stream in any way."""
    found = [path for path in prefix.parent.glob("*") if path.suffix in (".origin", ".side")]
    path = sorted(found)[random.integers(len(found))]
    if random.integers(8) == 0:
        path.unlink()
    else:
        change_bytes(random, path)
    return path


def no_file(random, prefix):
    """Put something that is no file in the place of one, or nothing."""
    path = Path(f"{prefix}{('.idx', '.bin', '.json', '.origin')[random.integers(4)]}")
    path.unlink()
    match random.integers(6):
        case 0:
            path.mkdir()
        case 1:
            os.mkfifo(path)
        case 2:
            path.symlink_to(path.with_name("nowhere"))
        case 3:
            path.symlink_to(path.name)
        case 4:
            path.symlink_to("/dev/zero")
        case 5:
            pass
    return path


DAMAGES = {
    index_bytes: 1300,
    index_header: 500,
    index_entry: 700,
    manifest_bytes: 700,
    manifest_value: 900,
    manifest_text: 200,
    bin_length: 150,
    bin_content: 300,
    side_file: 300,
    no_file: 100,
}
"""What is done to a prefix -> how often in one run of the tests; 5,150 in all."""
