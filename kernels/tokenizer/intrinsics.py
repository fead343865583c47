"""Wide loads, bit counts and vector compares: bytes flow in, 64-bit words and masks flow out.

Numba has no unaligned loads and no vectors of its own; these write LLVM's directly. LLVM turns the
64-byte compares into whatever the CPU has (AVX-512, AVX2, SSE2, NEON), so there is one build for
all, and hashes multiply instead of using crc32 for the same reason. Under `NUMBA_DISABLE_JIT` each
has a body in Python that gives the same value.

All of them read without bounds checks: the caller keeps 64 readable bytes behind its last index.
"""

from __future__ import annotations

from typing import Any

import numba as untyped_numba
import numpy as np

numba: Any = untyped_numba

LETTERS, DIGITS, SPACES, BREAKS, CAPITALS, HIGHS, CONTROLS = range(7)
"""Places in the tuple that `classify64` returns."""

if numba.config.DISABLE_JIT:

    def load_u64(data: Any, index: Any) -> Any:
        """Return the 8 bytes at data[index], little-endian."""
        i = int(index)
        raw = data[i : i + 8].tobytes()[:8]
        return np.uint64(int.from_bytes(raw.ljust(8, b"\0"), "little"))

    def store_i32(out: Any, index: Any, value: Any) -> None:
        """Write out[index] = value without a check of the bounds."""
        if int(index) < len(out):
            out[int(index)] = np.int32(int(value) & 0x7FFFFFFF)

    def store_u64(out: Any, index: Any, value: Any) -> None:
        """Write the 8 bytes of a word from out[index] on, without a check of the bounds."""
        i = int(index)
        room = len(out[i : i + 8 // out.itemsize])
        raw = (int(value) & (1 << 64) - 1).to_bytes(8, "little")[: room * out.itemsize]
        out[i : i + room] = np.frombuffer(raw, out.dtype)

    def prefetch(array: Any, index: Any) -> None:
        """Ask for the cache line of array[index]."""

    def trailing_zeros(word: Any) -> Any:
        """Return how many zero bits end the word; 64 for 0."""
        value = int(word)
        return np.int64(64 if value == 0 else (value & -value).bit_length() - 1)

    def leading_zeros(word: Any) -> Any:
        """Return how many zero bits begin the word; 64 for 0."""
        return np.int64(64 - int(word).bit_length())

    def classify64(data: Any, index: Any) -> Any:
        """Return seven masks of the 64 bytes at data[index]; see the compiled one."""
        raw = bytes(data[int(index) : int(index) + 64]).ljust(64, b"\0")
        masks = [0] * 7
        for i, byte in enumerate(raw):
            character = chr(byte)
            for place, member in (
                (LETTERS, byte < 128 and character.isalpha()),
                (DIGITS, byte < 128 and character.isdigit()),
                (SPACES, byte == 32),
                (BREAKS, 9 <= byte <= 13),
                (CAPITALS, "A" <= character <= "Z"),
                (HIGHS, byte >= 128),
                (CONTROLS, byte < 32 or byte == 127),
            ):
                masks[place] |= int(member) << i
        return tuple(np.uint64(mask) for mask in masks)

    def lowest32(array: Any, index: Any) -> Any:
        """Return the lowest of the 32 numbers (int32) from array[index] on."""
        return np.int64(min(int(number) for number in array[int(index) : int(index) + 32]))

    def match8(array: Any, index: Any, value: Any, shift: Any) -> Any:
        """Return the mask of those of the 8 numbers at array[index] that are value << shift, or
        differ from it in the lowest `shift` bits only."""
        numbers = [int(number) for number in array[int(index) : int(index) + 8]]
        found = sum(1 << i for i, n in enumerate(numbers) if n >> int(shift) == int(value))
        return np.uint64(found)

    def between64(data: Any, index: Any, low: Any, size: Any) -> Any:
        """Return the mask of those of the 64 bytes at data[index] from `low` up to low + size."""
        raw = bytes(data[int(index) : int(index) + 64]).ljust(64, b"\0")
        return np.uint64(sum(1 << i for i, b in enumerate(raw) if 0 <= b - int(low) < int(size)))

    def utf8_errors64(data: Any, index: Any) -> Any:
        """Return the mask of those of the 64 bytes at data[index] that cannot stand there in UTF-8,
        given the three bytes before them."""
        raw = [int(byte) for byte in data[int(index) - 3 : int(index) + 64]]
        found = 0
        for i, byte in enumerate(raw[3:]):
            third, second, before = raw[i : i + 3]
            wanted = before >= 0xC0 or second >= 0xE0 or third >= 0xF0
            low, top = {0xE0: (0xA0, 0xBF), 0xED: (0x80, 0x9F), 0xF0: (0x90, 0xBF)}.get(
                before, (0x80, 0x8F if before == 0xF4 else 0xBF)
            )
            wrong = (0x80 <= byte < 0xC0) != wanted or byte in (0xC0, 0xC1) or byte >= 0xF5
            wrong |= wanted and before >= 0xC0 and not low <= byte <= top
            found |= int(wrong) << i
        return np.uint64(found)

    def equal64(data: Any, index: Any, byte: Any) -> Any:
        """Return the mask of those of the 64 bytes at data[index] that equal `byte`."""
        raw = bytes(data[int(index) : int(index) + 64]).ljust(64, b"\0")
        return np.uint64(sum(1 << i for i, b in enumerate(raw) if b == int(byte)))

else:
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic

    _I64 = ir.IntType(64)
    _BYTES64 = ir.VectorType(ir.IntType(8), 64)

    def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
        view = context.make_array(array_type)(context, builder, array)
        return builder.gep(view.data, [index])

    def _splat(builder: Any, value: Any) -> Any:
        if isinstance(value, int):
            return ir.Constant(_BYTES64, [value] * 64)
        first = builder.insert_element(
            ir.Constant(_BYTES64, ir.Undefined), value, ir.Constant(ir.IntType(32), 0)
        )
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), 64), [0] * 64)
        return builder.shuffle_vector(first, ir.Constant(_BYTES64, ir.Undefined), zeros)

    @intrinsic  # type: ignore[untyped-decorator]
    def load_u64(typing_context, data, index):  # type: ignore[no-untyped-def]
        """Return the 8 bytes at data[index], little-endian."""

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            pointer = _pointer(context, builder, signature.args[0], *arguments)
            return builder.load(builder.bitcast(pointer, _I64.as_pointer()), align=1)

        return types.uint64(data, index), generate

    @intrinsic  # type: ignore[untyped-decorator]
    def store_i32(typing_context, out, index, value):  # type: ignore[no-untyped-def]
        """Write out[index] = value without a check of the bounds."""

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            out, index, value = arguments
            pointer = _pointer(context, builder, signature.args[0], out, index)
            narrow = builder.trunc(value, ir.IntType(32))
            builder.store(narrow, pointer, align=4)
            return context.get_dummy_value()

        return types.void(out, index, value), generate

    @intrinsic  # type: ignore[untyped-decorator]
    def store_u64(typing_context, out, index, value):  # type: ignore[no-untyped-def]
        """Write the 8 bytes of a word from out[index] on, without a check of the bounds."""

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            out, index, value = arguments
            pointer = _pointer(context, builder, signature.args[0], out, index)
            builder.store(value, builder.bitcast(pointer, _I64.as_pointer()), align=4)
            return context.get_dummy_value()

        return types.void(out, index, types.uint64), generate

    @intrinsic  # type: ignore[untyped-decorator]
    def prefetch(typing_context, array, index):  # type: ignore[no-untyped-def]
        """Ask for the cache line of array[index]."""

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            pointer = _pointer(context, builder, signature.args[0], *arguments)
            i32 = ir.IntType(32)
            address = builder.bitcast(pointer, ir.IntType(8).as_pointer())
            function = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call] # numba's
                builder.module,
                ir.FunctionType(ir.VoidType(), [address.type, i32, i32, i32]),
                "llvm.prefetch.p0i8",
            )
            builder.call(function, [address, i32(0), i32(3), i32(1)])
            return context.get_dummy_value()

        return types.void(array, index), generate

    def _count(name: str) -> Any:
        @intrinsic  # type: ignore[untyped-decorator]
        def count(typing_context, word):  # type: ignore[no-untyped-def]
            def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
                never_undefined = ir.Constant(ir.IntType(1), 0)
                return getattr(builder, name)(arguments[0], never_undefined)

            return types.int64(types.uint64), generate

        return count

    trailing_zeros = _count("cttz")
    leading_zeros = _count("ctlz")

    def _load64(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        return builder.load(builder.bitcast(pointer, _BYTES64.as_pointer()), align=1)

    @intrinsic  # type: ignore[untyped-decorator]
    def classify64(typing_context, data, index):  # type: ignore[no-untyped-def]
        """Return seven masks of the 64 bytes at data[index], bit i for byte i.

        ASCII letters, ASCII digits, U+0020, other ASCII white space (9 to 13), A to Z, all
        bytes from 128 up, and ASCII controls (below 32, and 127).
        """

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            block = _load64(context, builder, signature, arguments)

            def between(vector: Any, low: int, size: int) -> Any:
                moved = builder.sub(vector, _splat(builder, low))
                return builder.icmp_unsigned("<", moved, _splat(builder, size))

            folded = builder.or_(block, _splat(builder, 0x20))
            masks = (
                between(folded, ord("a"), 26),
                between(block, ord("0"), 10),
                builder.icmp_unsigned("==", block, _splat(builder, 0x20)),
                between(block, 9, 5),
                between(block, ord("A"), 26),
                builder.icmp_signed("<", block, _splat(builder, 0)),
                builder.or_(
                    builder.icmp_unsigned("<", block, _splat(builder, 32)),
                    builder.icmp_unsigned("==", block, _splat(builder, 127)),
                ),
            )
            words = [builder.bitcast(mask, _I64) for mask in masks]
            return context.make_tuple(builder, signature.return_type, words)

        seven = types.UniTuple(types.uint64, 7)  # type: ignore[no-untyped-call] # numba's
        return seven(data, index), generate

    @intrinsic  # type: ignore[untyped-decorator]
    def equal64(typing_context, data, index, byte):  # type: ignore[no-untyped-def]
        """Return the mask of those of the 64 bytes at data[index] that equal `byte` (uint8)."""

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            block = _load64(context, builder, signature, arguments[:2])
            same = builder.icmp_unsigned("==", block, _splat(builder, arguments[2]))
            return builder.bitcast(same, _I64)

        return types.uint64(data, index, byte), generate

    @intrinsic  # type: ignore[untyped-decorator]
    def between64(typing_context, data, index, low, size):  # type: ignore[no-untyped-def]
        """Return the mask of the bytes from `low` up to low + size (uint8), not included."""

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            block = _load64(context, builder, signature, arguments[:2])
            moved = builder.sub(block, _splat(builder, arguments[2]))
            inside = builder.icmp_unsigned("<", moved, _splat(builder, arguments[3]))
            return builder.bitcast(inside, _I64)

        return types.uint64(data, index, low, size), generate

    @intrinsic  # type: ignore[untyped-decorator]
    def utf8_errors64(typing_context, data, index):  # type: ignore[no-untyped-def]
        """Return the mask of those of the 64 bytes at data[index] that cannot stand there in UTF-8.

        The three bytes before them are read too, and are taken for valid; what they and the last
        ones of the 64 announce is looked for in the 64, and in the next 64.
        """

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            data, index = arguments

            def behind(distance: int) -> Any:
                moved = builder.sub(index, _I64(distance))
                return _load64(context, builder, signature, (data, moved))

            def is_from(vector: Any, low: int) -> Any:
                return builder.icmp_unsigned(">=", vector, _splat(builder, low))

            def equals(vector: Any, byte: int) -> Any:
                return builder.icmp_unsigned("==", vector, _splat(builder, byte))

            byte, before, second, third = (behind(distance) for distance in range(4))
            wanted = builder.or_(
                is_from(before, 0xC0), builder.or_(is_from(second, 0xE0), is_from(third, 0xF0))
            )
            follows = builder.icmp_signed("<", byte, _splat(builder, 0xC0))
            high, middle = is_from(byte, 0xA0), is_from(byte, 0x90)
            wrong = builder.xor(follows, wanted)
            for place in (
                equals(builder.or_(byte, _splat(builder, 1)), 0xC1),  # would be below U+0080
                is_from(byte, 0xF5),
                builder.and_(equals(before, 0xE0), builder.not_(high)),  # shorter forms exist
                builder.and_(equals(before, 0xED), high),  # surrogates
                builder.and_(equals(before, 0xF0), builder.not_(middle)),
                builder.and_(equals(before, 0xF4), middle),
            ):
                wrong = builder.or_(wrong, place)
            return builder.bitcast(wrong, _I64)

        return types.uint64(data, index), generate

    @intrinsic  # type: ignore[untyped-decorator]
    def lowest32(typing_context, array, index):  # type: ignore[no-untyped-def]
        """Return the lowest of the 32 numbers (int32) from array[index] on."""

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            numbers = ir.VectorType(ir.IntType(32), 32)
            pointer = _pointer(context, builder, signature.args[0], *arguments)
            block = builder.load(builder.bitcast(pointer, numbers.as_pointer()), align=4)
            function = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call] # numba's
                builder.module,
                ir.FunctionType(ir.IntType(32), [numbers]),
                "llvm.vector.reduce.smin.v32i32",
            )
            return builder.sext(builder.call(function, [block]), _I64)

        return types.int64(array, index), generate

    @intrinsic  # type: ignore[untyped-decorator]
    def match8(typing_context, array, index, value, shift):  # type: ignore[no-untyped-def]
        """Return the mask of the 8 numbers (uint64) at array[index] that >> shift == value."""

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            numbers = ir.VectorType(_I64, 8)
            pointer = _pointer(context, builder, signature.args[0], *arguments[:2])
            block = builder.load(builder.bitcast(pointer, numbers.as_pointer()), align=8)

            def spread(number: Any) -> Any:
                first = builder.insert_element(
                    ir.Constant(numbers, ir.Undefined), number, ir.Constant(ir.IntType(32), 0)
                )
                zeros = ir.Constant(ir.VectorType(ir.IntType(32), 8), [0] * 8)
                return builder.shuffle_vector(first, ir.Constant(numbers, ir.Undefined), zeros)

            moved = builder.lshr(block, spread(arguments[3]))
            same = builder.icmp_unsigned("==", moved, spread(arguments[2]))
            return builder.zext(builder.bitcast(same, ir.IntType(8)), _I64)

        return types.uint64(array, index, value, shift), generate
