"""The coder of small tensors: every position is a decision; native/format/mixing_coder.h does the same."""

from dataclasses import dataclass

from gossamer_runtime.coding.adaptive import (
    COUNTER_BITS,
    COUNTER_ONE,
    LOGITS,
    TO_PROBABILITY,
    Counters,
    Mixer,
    probability_of,
)
from gossamer_runtime.coding.gaps import LevelsContradict
from gossamer_runtime.coding.range_coder import EVEN_ODDS, Coder

_REACH = 4
"""Columns that a window on the grid reaches to a side, and one more."""
_PADDING = 13
_WINDOW = 12
_BUCKETS = 32
_UNARY = 20
"""Magnitudes below are counted."""
_MOST_OCTAVE = 15
_EXACT_BITS = 3

_BUCKET = [0, 1, 2, 3]
_BUCKET += [2 * (count.bit_length() - 1) + (count >> (count.bit_length() - 2) & 1) for count in range(4, 1 << 16)]


def _bucket(count: int) -> int:
    """0 to 31: the first four numbers by themselves, then two to an octave."""
    return _BUCKET[count] if count < 1 << 16 else _BUCKETS - 1


def _sign(level: int) -> int:
    return 1 if level > 0 else 2 if level < 0 else 0


def _bounded(total: int) -> int:
    return max(-4, min(total, 4)) + 4


def _doubled_mean(total: int, count: int) -> int:
    return min(2 * total // count, 15) if count else 0


@dataclass
class LevelMatrix:
    """A matrix of levels as it is coded, row by row."""

    rows: list[list[int]]
    columns: int
    places: int
    """Neighbouring columns that make up a kernel."""
    grid: int
    """0, or columns of the image that a row's columns are: c - grid lies above c."""
    kept: int
    largest: int


class MixingCoder:
    """Codes a matrix in either direction: an encoder reads its rows, a decoder writes them."""

    def __init__(self, coder: Coder, matrix: LevelMatrix) -> None:
        self._coder = coder
        self._matrix = matrix
        columns, grid = matrix.columns, matrix.grid
        self._shift = shift = 2 * grid + _REACH if grid else _PADDING
        self._now, self._above = [0] * (columns + 2 * shift), [0] * (columns + 2 * shift)
        self._column_kept = [0] * (columns + 2 * shift)
        self._column_sum, self._column_sign = [0] * columns, [0] * columns
        self._channel_kept = [0] * (columns // matrix.places)
        density = ((matrix.kept + 1) << COUNTER_BITS) // (len(matrix.rows) * columns + 2)
        start = max(1, min(density, COUNTER_ONE))
        sizes = (_BUCKETS**2, 256, _BUCKETS**2, _BUCKETS**2, 16 * _BUCKETS**2)
        self._kept_counters = [Counters(size, start) for size in sizes]
        self._by_row, self._by_window = Mixer(5, _BUCKETS, 11796, 4), Mixer(5, _BUCKETS, 11796, 4)
        self._sign_counters = [Counters(81), Counters(81), Counters(len(matrix.rows)), Counters(81)]
        self._sign_mixer = Mixer(4, 1, 13107, 16)
        self._magnitude_counters = [Counters(16 * _UNARY) for _ in range(5)]
        self._magnitude_mixer = Mixer(5, _UNARY, 13107, 10)
        self._octaves, self._exact = Counters(_MOST_OCTAVE), Counters(8 * (_MOST_OCTAVE + 1))
        self._row = self._row_kept = self._row_sum = self._row_sign = self._kernel_kept = 0

    def run(self) -> None:
        """Codes all of it.

        Raises:
            LevelsContradict: the levels are not as many as the matrix says, or larger.
        """
        matrix, kept = self._matrix, 0
        for self._row, levels in enumerate(matrix.rows):
            self._now, self._above = [0] * len(self._now), self._now
            self._row_kept = self._row_sum = self._row_sign = 0
            for column in range(matrix.columns):
                if column % matrix.places == 0:
                    self._kernel_kept = 0
                level = levels[column]
                if not self._code_kept(column, int(level != 0)):
                    continue
                kept += 1
                if kept > matrix.kept:
                    raise LevelsContradict("more kept weights than the header says")
                negative = self._code_sign(column, int(level < 0))
                magnitude = self._code_magnitude(column, abs(level))
                if magnitude > matrix.largest:
                    raise LevelsContradict("a level is larger than the largest")
                levels[column] = -magnitude if negative else magnitude
                self._add(column, levels[column])
        if kept != matrix.kept:
            raise LevelsContradict("fewer kept weights than the header says")

    def _code_kept(self, column: int, bit: int) -> int:
        contexts, near = self._kept_contexts(column)
        counters = self._kept_counters
        logits = [LOGITS[counters[i].probability[contexts[i]] >> TO_PROBABILITY] for i in range(5)]
        in_rows = _bucket(self._row)
        by_row, by_window = self._by_row.mix(logits, in_rows), self._by_window.mix(logits, near)
        bit = self._coder.code(bit, probability_of((by_row + by_window) >> 1))
        self._by_row.update(logits, in_rows, by_row, bit)
        self._by_window.update(logits, near, by_window, bit)
        for i in range(5):
            counters[i].update(contexts[i], bit)
        return bit

    def _kept_contexts(self, column: int) -> tuple[tuple[int, ...], int]:
        grid, at = self._matrix.grid, column + self._shift
        now, above, counts = self._now, self._above, self._column_kept
        neighbours = (now[at - 1] != 0) | (now[at - 2] != 0) << 1
        neighbours |= (above[at] != 0) << 5 | (above[at + 1] != 0) << 6 | (above[at - 1] != 0) << 7
        around = counts[at - 1] + counts[at + 1]
        if grid:
            neighbours |= (now[at - grid] != 0) << 2 | (now[at - grid + 1] != 0) << 3 | (now[at - grid - 1] != 0) << 4
            around += sum(counts[at - grid - 1 : at - grid + 2]) + sum(counts[at + grid - 1 : at + grid + 2])
            window = now[at - 3 : at] + now[at - grid - 3 : at - grid + 4] + now[at - 2 * grid - 3 : at - 2 * grid + 4]
        else:
            neighbours |= (now[at - 3] != 0) << 2 | (above[at - 2] != 0) << 3 | (above[at + 2] != 0) << 4
            around += counts[at - 2] + counts[at + 2]
            window = now[at - _WINDOW : at]
        near = len(window) - window.count(0)
        in_row, in_column = _bucket(self._row_kept), _bucket(counts[at])
        in_channel = _bucket(self._channel_kept[column // self._matrix.places])
        return (
            in_row * _BUCKETS + in_column,
            neighbours,
            near * _BUCKETS + _bucket(around),
            near * _BUCKETS + in_row,
            (min(self._kernel_kept, 15) * _BUCKETS + in_channel) * _BUCKETS + in_column,
        ), near

    def _mixed(self, counters: list[Counters], contexts: tuple[int, ...], mixer: Mixer, chosen: int, bit: int) -> int:
        logits = [LOGITS[c.probability[i] >> TO_PROBABILITY] for c, i in zip(counters, contexts, strict=True)]
        mixed = mixer.mix(logits, chosen)
        bit = self._coder.code(bit, probability_of(mixed))
        mixer.update(logits, chosen, mixed, bit)
        for counter, context in zip(counters, contexts, strict=True):
            counter.update(context, bit)
        return bit

    def _code_sign(self, column: int, negative: int) -> int:
        grid, now, at = self._matrix.grid, self._now, column + self._shift
        beside, above = _sign(now[at - 1]), _sign(now[at - grid] if grid else now[at - 2])
        corners = 3 * _sign(now[at - grid - 1]) + _sign(now[at - grid + 1]) if grid else 0
        contexts = (
            beside * 9 + above * 3 + _sign(self._above[at]),
            _bounded(self._row_sign) * 9 + _bounded(self._column_sign[column]),
            self._row,
            corners * 9 + above * 3 + beside,
        )
        return self._mixed(self._sign_counters, contexts, self._sign_mixer, 0, negative)

    def _code_magnitude(self, column: int, magnitude: int) -> int:
        grid, now, at, largest = self._matrix.grid, self._now, column + self._shift, self._matrix.largest
        row_mean = _doubled_mean(self._row_sum, self._row_kept)
        column_mean = _doubled_mean(self._column_sum[column], self._column_kept[at])
        beside = min(max(abs(now[at - 1]), abs(now[at - grid]) if grid else 0), 15)
        in_row = _bucket(self._row_kept) // 2
        for reached in range(1, largest):
            if reached == _UNARY:
                return _UNARY + self._code_rest(magnitude - _UNARY)
            first = 16 * reached
            contexts = (reached, first + row_mean, first + column_mean, first + beside, first + in_row)
            more = int(magnitude > reached)
            if not self._mixed(self._magnitude_counters, contexts, self._magnitude_mixer, reached, more):
                return reached
        return largest

    def _code_rest(self, rest: int) -> int:
        """Of rest + 1 the number of bits behind the first one, then those bits: the first three adaptive."""
        number, octave = rest + 1, 0
        while octave < _MOST_OCTAVE and self._octaves.code(self._coder, octave, int(number >> (octave + 1) > 0)):
            octave += 1
        got = 1
        for bit in range(octave - 1, -1, -1):
            wanted = number >> bit & 1
            if octave - 1 - bit < _EXACT_BITS:
                got = 2 * got + self._exact.code(self._coder, 8 * octave + got, wanted)
            else:
                got = 2 * got + self._coder.code(wanted, EVEN_ODDS)
        return got - 1

    def _add(self, column: int, level: int) -> None:
        at, magnitude, sign = column + self._shift, abs(level), -1 if level < 0 else 1
        self._now[at] = level
        self._row_kept += 1
        self._row_sum += magnitude
        self._row_sign += sign
        self._column_kept[at] += 1
        self._column_sum[column] += magnitude
        self._column_sign[column] += sign
        self._channel_kept[column // self._matrix.places] += 1
        self._kernel_kept += 1
