"""Dot products of rows of a matrix with rows of numbers, written in LLVM's language for vector instructions.

Numba compiles loops over numbers, not over vectors, and leaves to LLVM in which order a sum is taken. Here the order is
fixed: eight partial sums along the width, added up in pairs at the end. So a product has the same bits however many
others are computed with it.

N rows of the matrix (columns of the product), W width, B rows of numbers, G groups of 32 along the width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

# Any: builders and values of llvmlite, which has no types.
_Value = Any
_Step = Callable[[_Value, list[_Value]], list[_Value]]

GROUP = 32
"""Numbers along the width that share a scale: those of activations, and codes of 4 bits."""
_LANES = 8

_build: Any = cgutils
_F32 = ir.FloatType()
_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))


@intrinsic
def dot_products(_: Any, weight: Any, scales: Any, x: Any, x_scales: Any, x_sums: Any, columns: Any, rows: Any) -> Any:
    """Return the products of each of `columns` (a tuple of numbers of rows of `weight`) with each of `rows` of `x`.

    They come column by column, in one tuple. The type of `weight` says what the numbers are:

    - fp32: (N, W). `x` is (B, W) fp32, `scales`, `x_scales` and `x_sums` are None.
    - int8: codes (N, W), `scales` (N,), bits of fp16. `x` is (B, G x 32) int16, zero after W, with `x_scales` (B, G).
    - uint8: two codes a byte (N, W / 2), `scales` (N, G), bits of fp16 (`alm.quant.codes.Int4Matrix`). `x` likewise;
      `x_sums` (B, G) int32 are minus the sums of its groups.
    """
    several: Any = types.UniTuple  # untyped
    signature = several(types.float32, columns.count * rows.count)(weight, scales, x, x_scales, x_sums, columns, rows)

    def write(context: Any, builder: Any, _: Any, given: Any) -> Any:
        named = zip(signature.args, given, strict=True)
        arrays = [
            context.make_array(kind)(context, builder, value) if isinstance(kind, types.Array) else None
            for kind, value in named
        ]
        columns, rows = (_build.unpack_tuple(builder, value) for value in given[-2:])
        writer = _WRITERS[weight.dtype](builder, *arrays[:5], columns, rows)
        return context.make_tuple(builder, signature.return_type, writer.products())

    return signature, write


class _Fp32:
    """Writes the instructions for fp32."""

    along = _LANES

    def __init__(
        self,
        builder: _Value,
        weight: _Value,
        scales: _Value,
        x: _Value,
        x_scales: _Value,
        x_sums: _Value,
        columns: Sequence[_Value],
        rows: Sequence[_Value],
    ) -> None:
        self.builder = builder
        self.columns, self.rows = columns, rows
        self.width = self._shape(weight)[1]
        self.weights, self.x = self._starts(weight, columns), self._starts(x, rows)
        self.scales, self.x_scales, self.x_sums = scales, x_scales, x_sums

    def products(self) -> list[_Value]:
        """Write a loop over whole steps, and one over the numbers that are left."""
        builder = self.builder
        count = len(self.columns) * len(self.rows)
        steps = builder.udiv(self.width, _I64(self.along))
        lanes = self.steps(steps, [_same(_F32, 0.0)] * count)
        rest = self._loop(builder.mul(steps, _I64(self.along)), self.width, [self.zero] * count, self.step_of_one)
        return self.finish([self._total(each) for each in lanes], rest)

    zero = _F32(0.0)

    def steps(self, count: _Value, sums: list[_Value]) -> list[_Value]:
        """Write the loop over whole steps."""
        return self._loop(_I64(0), count, sums, self.step)

    def step(self, at: _Value, sums: list[_Value]) -> list[_Value]:
        """Add eight products to eight partial sums."""
        builder = self.builder
        place = builder.mul(at, _I64(_LANES))
        x = [self._load(start, place, _vector(_F32)) for start in self.x]
        weights = [self._load(start, place, _vector(_F32)) for start in self.weights]
        pairs = [(weight, numbers) for weight in weights for numbers in x]
        return [self._fused(*pair, total) for pair, total in zip(pairs, sums, strict=True)]

    def step_of_one(self, at: _Value, sums: list[_Value]) -> list[_Value]:
        """Add one product."""
        builder = self.builder
        x = [self._load(start, at, _F32) for start in self.x]
        weights = [self._load(start, at, _F32) for start in self.weights]
        products = [builder.fmul(weight, number) for weight in weights for number in x]
        return [builder.fadd(total, product) for total, product in zip(sums, products, strict=True)]

    def finish(self, totals: list[_Value], rest: list[_Value]) -> list[_Value]:
        """Add what is left."""
        return [self.builder.fadd(total, left) for total, left in zip(totals, rest, strict=True)]

    def _loop(self, start: _Value, stop: _Value, values: list[_Value], step: _Step) -> list[_Value]:
        """Write a loop from `start` to `stop`, and return what `step` makes of `values` in it."""
        builder = self.builder
        before, body, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
        builder.cbranch(builder.icmp_unsigned("<", start, stop), body, after)
        builder.position_at_end(body)
        at = builder.phi(_I64)
        carried = [builder.phi(value.type) for value in values]
        new = step(at, list(carried))
        following = builder.add(at, _I64(1))
        builder.cbranch(builder.icmp_unsigned("<", following, stop), body, after)
        for phi, first, then in zip([at, *carried], [start, *values], [following, *new], strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(then, body)
        builder.position_at_end(after)
        results = [builder.phi(value.type) for value in values]
        for phi, first, then in zip(results, values, new, strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(then, body)
        return results

    def _total(self, lanes: _Value) -> _Value:
        while lanes.type.count > 1:
            half = lanes.type.count // 2
            lanes = self.builder.fadd(self._chosen(lanes, range(half)), self._chosen(lanes, range(half, 2 * half)))
        return self.builder.extract_element(lanes, _I32(0))

    def _fused(self, x: _Value, y: _Value, z: _Value) -> _Value:
        kind = ir.FunctionType(x.type, [x.type] * 3)
        function = _build.get_or_insert_function(self.builder.module, kind, f"llvm.fma.v{_LANES}f32")
        return self.builder.call(function, [x, y, z])

    def _chosen(self, vector: _Value, places: Sequence[int]) -> _Value:
        nothing = ir.Constant(vector.type, ir.Undefined)
        return self.builder.shuffle_vector(vector, nothing, ir.Constant(_vector(_I32, len(places)), list(places)))

    def _spread(self, number: _Value) -> _Value:
        """Return a vector of eight times `number`."""
        nothing = ir.Constant(_vector(number.type), ir.Undefined)
        return self._chosen(self.builder.insert_element(nothing, number, _I32(0)), [0] * _LANES)

    def _load(self, start: _Value, place: _Value, kind: _Value) -> _Value:
        found = self.builder.load(self.builder.bitcast(self.builder.gep(start, [place]), kind.as_pointer()))
        found.align = 1
        return found

    def _shape(self, array: _Value) -> Sequence[_Value]:
        sizes: Sequence[_Value] = _build.unpack_tuple(self.builder, array.shape)
        return sizes

    def _starts(self, array: _Value, rows: Sequence[_Value]) -> list[_Value]:
        """Return where each of `rows` of `array` begins."""
        length = self._shape(array)[1]
        return [self.builder.gep(array.data, [self.builder.mul(row, length)]) for row in rows]


class _Int8(_Fp32):
    """Writes the instructions for codes of a byte: whole numbers are multiplied and added, in groups of 32."""

    along = GROUP
    zero = _I32(0)

    def step(self, at: _Value, sums: list[_Value]) -> list[_Value]:
        """Add the products of a group times its scales."""
        x_scales = [self._load(start, at, _F32) for start in self._starts(self.x_scales, self.rows)]
        return self.group(at, sums, [self._spread(scale) for scale in x_scales] * len(self.columns))

    def group(self, at: _Value, sums: list[_Value], factors: list[_Value]) -> list[_Value]:
        """Add the products of a group, of which each lane takes four, times factors for each column and row."""
        builder = self.builder
        place = builder.mul(at, _I64(GROUP))
        x = [self._halves(start, place) for start in self.x]
        new: list[_Value] = []
        for column in range(len(self.columns)):
            codes = self.codes(column, at)
            for row, numbers in enumerate(x):
                whole = builder.add(*(self._of_pairs(*both) for both in zip(codes, numbers, strict=True)))
                number = builder.sitofp(self.corrected(whole, row, at), _vector(_F32))
                new.append(self._fused(number, factors[len(new)], sums[len(new)]))
        return new

    def codes(self, column: int, at: _Value) -> tuple[_Value, ...]:
        """Return the codes of a group, in two halves of 16 bits a code."""
        place = self.builder.mul(at, _I64(GROUP))
        start = self.weights[column]
        starts = (place, self.builder.add(place, _I64(GROUP // 2)))
        wide = _vector(_I16, GROUP // 2)
        return tuple(self.builder.sext(self._load(start, each, _vector(_I8, GROUP // 2)), wide) for each in starts)

    def corrected(self, whole: _Value, row: int, at: _Value) -> _Value:
        """Return the sums of products with the codes, from those with what is stored."""
        return whole

    def step_of_one(self, at: _Value, sums: list[_Value]) -> list[_Value]:
        """Add one product of whole numbers, of the group that is not complete."""
        builder = self.builder
        x = [builder.sext(self._load(start, at, _I16), _I32) for start in self.x]
        codes = [builder.sext(self._load(start, at, _I8), _I32) for start in self.weights]
        products = [builder.mul(code, number) for code in codes for number in x]
        return [builder.add(total, product) for total, product in zip(sums, products, strict=True)]

    def finish(self, totals: list[_Value], rest: list[_Value]) -> list[_Value]:
        """Add the incomplete group times its scale, and multiply by the scales of rows."""
        builder = self.builder
        group = builder.udiv(self.width, _I64(GROUP))
        is_there = builder.icmp_unsigned("!=", builder.urem(self.width, _I64(GROUP)), _I64(0))
        # There is always a scale to read: that of the last group.
        last = builder.select(is_there, group, builder.sub(group, _I64(1)))
        x_scales = [self._load(start, last, _F32) for start in self._starts(self.x_scales, self.rows)]
        scales = [self._half(self.scales.data, column) for column in self.columns]
        factors = [(scale, x_scale) for scale in scales for x_scale in x_scales]
        found = []
        for total, left, (scale, x_scale) in zip(totals, rest, factors, strict=True):
            added = builder.fmul(builder.sitofp(left, _F32), x_scale)
            found.append(builder.fmul(builder.fadd(total, added), scale))
        return found

    def _halves(self, start: _Value, place: _Value) -> tuple[_Value, _Value]:
        half = _vector(_I16, GROUP // 2)
        return self._load(start, place, half), self._load(start, self.builder.add(place, _I64(GROUP // 2)), half)

    def _of_pairs(self, x: _Value, y: _Value) -> _Value:
        """Return x0 y0 + x1 y1, x2 y2 + x3 y3 ..., in 32 bits: one instruction on x86 (vpmaddwd)."""
        builder = self.builder
        wide = _vector(_I32, x.type.count)
        products = builder.mul(builder.sext(x, wide), builder.sext(y, wide))
        even, odd = (self._chosen(products, range(first, x.type.count, 2)) for first in (0, 1))
        return builder.add(even, odd)

    def _half(self, start: _Value, place: _Value) -> _Value:
        """Read a number of fp16."""
        bits = self.builder.insert_element(_same(_I16, 0, 1), self._load(start, place, _I16), _I32(0))
        return self.builder.extract_element(self._widened(bits), _I32(0))

    def _widened(self, bits: _Value) -> _Value:
        """Return fp32 numbers of the bits of finite fp16 numbers, exactly.

        Not by LLVM's own instruction: without F16C it calls a function that Numba does not have, and the process ends.
        """
        builder, count = self.builder, bits.type.count
        wide = builder.zext(bits, _vector(_I32, count))
        sign = builder.shl(builder.and_(wide, _same(_I32, 0x8000, count)), _same(_I32, 16, count))
        rest = builder.shl(builder.and_(wide, _same(_I32, 0x7FFF, count)), _same(_I32, 13, count))
        # The exponents of both formats begin at other numbers, 127 and 15.
        size = builder.fmul(builder.bitcast(rest, _vector(_F32, count)), _same(_F32, 2.0**112, count))
        return builder.bitcast(builder.or_(builder.bitcast(size, wide.type), sign), _vector(_F32, count))


class _Int4(_Int8):
    """Writes the instructions for two codes a byte, each plus 8."""

    def __init__(self, builder: _Value, weight: _Value, *others: _Value) -> None:
        super().__init__(builder, weight, *others)
        self.width = builder.mul(self.width, _I64(2))

    def codes(self, column: int, at: _Value) -> tuple[_Value, ...]:
        """Return the low halves of 16 bytes, then the high ones."""
        builder = self.builder
        place = builder.mul(at, _I64(GROUP // 2))
        stored = self._load(self.weights[column], place, _vector(_I8, GROUP // 2))
        # As vectors of 32 bits: LLVM then widens bytes once, not each half of them.
        both = builder.bitcast(builder.zext(stored, _vector(_I16, GROUP // 2)), _vector(_I32))
        mask = _same(_I32, 0x000F000F)
        halves = (builder.and_(both, mask), builder.and_(builder.lshr(both, _same(_I32, 4)), mask))
        return tuple(builder.bitcast(half, _vector(_I16, GROUP // 2)) for half in halves)

    def steps(self, count: _Value, sums: list[_Value]) -> list[_Value]:
        """Write a loop over four groups at a time, whose scales are read at once, and one over those that are left."""
        fours = self.builder.udiv(count, _I64(4))
        sums = self._loop(_I64(0), fours, sums, lambda at, some: self._groups(at, some, 4))
        return self._loop(self.builder.mul(fours, _I64(4)), count, sums, lambda at, some: self._groups(at, some, 1))

    def _groups(self, at: _Value, sums: list[_Value], count: int) -> list[_Value]:
        """Add the products of `count` groups."""
        builder = self.builder
        first = builder.mul(at, _I64(count))
        halves = [self._load(start, first, _vector(_I16, count)) for start in self._starts(self.scales, self.columns)]
        scales = [self._widened(half) for half in halves]
        x_scales = [self._load(start, first, _vector(_F32, count)) for start in self._starts(self.x_scales, self.rows)]
        factors = [builder.fmul(x_scale, scale) for scale in scales for x_scale in x_scales]
        for number in range(count):
            one = [self._chosen(factor, [number] * _LANES) for factor in factors]
            sums = self.group(builder.add(first, _I64(number)), sums, one)
        return sums

    def corrected(self, whole: _Value, row: int, at: _Value) -> _Value:
        """Subtract 8 times the sum of the group: each of eight lanes subtracts it once."""
        sums = self._load(self._starts(self.x_sums, self.rows)[row], at, _I32)
        return self.builder.add(whole, self._spread(sums))

    def finish(self, totals: list[_Value], rest: list[_Value]) -> list[_Value]:
        """Return the totals: all groups are complete."""
        return totals


def _vector(kind: _Value, count: int = _LANES) -> _Value:
    return ir.VectorType(kind, count)


def _same(kind: _Value, value: float, count: int = _LANES) -> _Value:
    return ir.Constant(_vector(kind, count), [value] * count)


_WRITERS = {types.float32: _Fp32, types.int8: _Int8, types.uint8: _Int4}
