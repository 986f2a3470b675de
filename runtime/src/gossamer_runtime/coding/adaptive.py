"""Probabilities that follow the bits they were asked for, in integers; native/format/adaptive_bits.h does the same."""

from collections.abc import Sequence
from itertools import repeat

from gossamer_runtime.coding.range_coder import PROBABILITY_BITS, Coder

COUNTER_BITS = 22
COUNTER_ONE = (1 << COUNTER_BITS) - 1
TO_PROBABILITY = COUNTER_BITS - PROBABILITY_BITS
MOST_SEEN = 255
MOST_LOGIT = 2047
"""A logit is in units of 1.5 / 256."""
_MOST_WEIGHT = 1 << 20

RATES = [(1 << 16) // (seen + 2) for seen in range(MOST_SEEN + 1)]
"""By how much the n-th bit moves a counter: 2^16 / (n + 2)."""


def _probabilities() -> list[int]:
    one = 1 << 32
    step = 4269875056  # 2^32 exp(-1.5 / 256)
    above, below, odds = [], [], one
    for _ in range(MOST_LOGIT + 1):
        probability = max(1, (odds << PROBABILITY_BITS) // (one + odds))
        below.append(probability)
        above.append((1 << PROBABILITY_BITS) - probability)
        odds = (odds * step + one // 2) >> 32
    return below[:0:-1] + above


def _logits() -> list[int]:
    found: list[int] = []
    for logit in range(-MOST_LOGIT, MOST_LOGIT):
        found.extend(repeat(logit, PROBABILITIES[logit + 1 + MOST_LOGIT] - len(found)))
    found.extend(repeat(MOST_LOGIT, (1 << PROBABILITY_BITS) - len(found)))
    return found


PROBABILITIES = _probabilities()
"""By logit + MOST_LOGIT."""
LOGITS = _logits()
"""By probability: the largest logit whose own is not above it."""


class Counters:
    """Probabilities of a 1, one a context, and how many bits each has seen."""

    def __init__(self, contexts: int, probability: int = 1 << (COUNTER_BITS - 1)) -> None:
        self.probability = [probability] * contexts
        self.seen = [0] * contexts

    def update(self, context: int, bit: int) -> None:
        """Moves a probability towards the bit."""
        old, seen = self.probability[context], self.seen[context]
        if bit:
            self.probability[context] = old + ((COUNTER_ONE - old) * RATES[seen] >> 16)
        else:
            self.probability[context] = old - (old * RATES[seen] >> 16)
        if seen < MOST_SEEN:
            self.seen[context] = seen + 1

    def code(self, coder: Coder, context: int, bit: int) -> int:
        """Codes a bit by one counter alone."""
        bit = coder.code(bit, self.probability[context] >> TO_PROBABILITY or 1)
        self.update(context, bit)
        return bit


class Mixer:
    """Logits of several counters, weighed by weights that learn which of them are right (logistic mixing).

    Weights are in units of 2^-16, a set of them for each of some contexts.
    """

    def __init__(self, inputs: int, sets: int, weight: int, rate: int) -> None:
        self._weights = [[weight] * inputs for _ in range(sets)]
        self._rate = rate

    def mix(self, logits: Sequence[int], chosen: int) -> int:
        """The mixed logit, not yet within the bounds of one."""
        return sum(map(int.__mul__, logits, self._weights[chosen])) >> 16

    def update(self, logits: Sequence[int], chosen: int, mixed: int, bit: int) -> None:
        """Moves the weights of one set towards what would have been right."""
        error = ((bit << PROBABILITY_BITS) - probability_of(mixed)) * self._rate
        weights = self._weights[chosen]
        for i, logit in enumerate(logits):
            weight = weights[i] + ((logit * error + (1 << 17)) >> 18)
            weights[i] = (
                weight if -_MOST_WEIGHT <= weight <= _MOST_WEIGHT else max(-_MOST_WEIGHT, min(weight, _MOST_WEIGHT))
            )


def probability_of(logit: int) -> int:
    """The probability of any logit, cut to the bounds of one."""
    if logit > MOST_LOGIT:
        return PROBABILITIES[2 * MOST_LOGIT]
    return PROBABILITIES[logit + MOST_LOGIT] if logit > -MOST_LOGIT else PROBABILITIES[0]
