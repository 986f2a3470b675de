"""Binary range coder on integers; native/format/range_coder.h does the same."""

from typing import Protocol

PROBABILITY_BITS = 16
EVEN_ODDS = 1 << 15
STATE_BYTES = 8
_WORD = 1 << 32
_STATE = 1 << 64


class Coder(Protocol):
    """Either direction: an encoder is given bits and returns them, a decoder finds them."""

    def code(self, bit: int, probability: int) -> int:
        """One decision; ``probability`` is that of a 1, in units of 2^-16, within 1 and 2^16 - 1."""


class Encoder:
    """Writes a stream."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._low = 0
        self._range = _STATE - 1

    def code(self, bit: int, probability: int) -> int:
        """See Coder."""
        ones = (self._range >> PROBABILITY_BITS) * probability
        if bit:
            self._range = ones
        else:
            self._low += ones
            self._range -= ones
        if self._range < _WORD:
            self._append(4)
            self._low = (self._low << 32) % _STATE
            self._range <<= 32
        return bit

    def finish(self) -> bytes:
        """The whole stream: what left the state, and the fewest bytes that name a number within the interval."""
        for count in range(STATE_BYTES + 1):
            below = (1 << (64 - 8 * count)) - 1
            number = (self._low + below) & ~below
            if number - self._low < self._range:
                self._low = number
                self._append(count)
                break
        return bytes(self._bytes)

    def _append(self, count: int) -> None:
        if self._low >= _STATE:
            self._low -= _STATE
            last = len(self._bytes) - 1
            while self._bytes[last] == 255:
                self._bytes[last] = 0
                last -= 1
            self._bytes[last] += 1
        self._bytes += self._low.to_bytes(STATE_BYTES, "big")[:count]


class Decoder:
    """Reads a stream; behind its end it takes zeros, and ``is_at_end`` tells afterwards."""

    def __init__(self, stream: bytes) -> None:
        self._bytes = stream
        self._range = _STATE - 1
        self._read = STATE_BYTES
        self._code = int.from_bytes(stream[:STATE_BYTES].ljust(STATE_BYTES, b"\0"), "big")

    def code(self, bit: int, probability: int) -> int:
        """See Coder; what bit is given does not matter."""
        ones = (self._range >> PROBABILITY_BITS) * probability
        if self._code < ones:
            self._range = ones
            bit = 1
        else:
            self._code -= ones
            self._range -= ones
            bit = 0
        if self._range < _WORD:
            word = self._bytes[self._read : self._read + 4].ljust(4, b"\0")
            self._code = (self._code << 32) % _STATE | int.from_bytes(word, "big")
            self._read += 4
            self._range <<= 32
        return bit

    @property
    def is_at_end(self) -> bool:
        """Whether the stream ends where an encoder would have ended it, to within the bytes that it leaves out."""
        return self._read - STATE_BYTES <= len(self._bytes) <= self._read
