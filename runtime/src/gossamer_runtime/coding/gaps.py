"""The coder of large tensors, whose work follows rows and kept weights; native/format/gap_coder.h does the same."""

from collections.abc import Sequence

from gossamer_runtime.coding.adaptive import Counters
from gossamer_runtime.coding.range_coder import EVEN_ODDS, Coder

MOST_COLUMNS = (1 << 28) - 1
_LEAVES, _SINGLE, _DEPTH = 64, 16, 6
_CLASSES = 64


class LevelsContradict(ValueError):
    """What was decoded is not what the header says."""


class _NumberTree:
    """Numbers below 2^28: the first 16 by themselves, then two leaves to an octave."""

    def __init__(self) -> None:
        self._counters = Counters(_LEAVES)

    def code(self, coder: Coder, number: int) -> int:
        wanted = number
        if number >= _SINGLE:
            octave = number.bit_length() - 1
            wanted = _SINGLE + 2 * (octave - 4) + (number >> (octave - 1) & 1)
        node = 1
        for depth in range(_DEPTH - 1, -1, -1):
            node = 2 * node + self._counters.code(coder, node, wanted >> depth & 1)
        leaf = node - _LEAVES
        if leaf < _SINGLE:
            return leaf
        got = 2 + (leaf & 1)
        for bit in range((leaf - _SINGLE) // 2 + 2, -1, -1):
            got = 2 * got + coder.code(number >> bit & 1, EVEN_ODDS)
        return got


def _quarter_log(number: int) -> int:
    """log2 in quarters, cut off."""
    octave = number.bit_length() - 1
    return 4 * octave + ((number << 2 >> octave) & 3)


class GapCoder:
    """Rows of one group, in either direction."""

    def __init__(self, coder: Coder) -> None:
        self._coder = coder
        self._counts = [_NumberTree() for _ in range(29)]
        self._gaps = [_NumberTree() for _ in range(_CLASSES)]
        self._magnitudes = _NumberTree()
        self._previous = 0

    def row(
        self, length: int, columns: Sequence[int], levels: Sequence[int], most: int, largest: int
    ) -> tuple[list[int], list[int]]:
        """Columns and levels of a row's kept weights: those that are given, or those that are found.

        Raises:
            LevelsContradict: more than ``most`` of them, a column behind ``length``, or a level above ``largest``.
        """
        kept = self._counts[self._previous.bit_length()].code(self._coder, len(columns))
        self._previous = kept
        if kept > min(length, most):
            raise LevelsContradict("a row has more weights than are left")
        found_columns, found_levels, following = [], [], 0
        given = zip(columns, levels, strict=True) if columns else ((following, 1) for _ in range(kept))
        for left, (column, level) in zip(range(kept, 0, -1), given, strict=True):
            room = length - following
            gap = 0
            if left != room:
                expected = min(_quarter_log(room) - _quarter_log(left), _CLASSES - 1)
                gap = self._gaps[expected].code(self._coder, column - following)
            if gap > room - left:
                raise LevelsContradict("a gap leads past the end of its row")
            negative = self._coder.code(int(level < 0), EVEN_ODDS)
            magnitude = 1 + self._magnitudes.code(self._coder, abs(level) - 1)
            if magnitude > largest:
                raise LevelsContradict("a level is larger than the largest")
            found_columns.append(following + gap)
            found_levels.append(-magnitude if negative else magnitude)
            following += gap + 1
        return found_columns, found_levels
