"""A slow decoder of version 2, written from docs/format.md and from nothing else."""

from bisect import bisect_right
from collections import defaultdict
from itertools import chain
from math import prod
from zlib import crc32

ODDS = [2**32]
for _ in range(2047):
    ODDS.append((ODDS[-1] * 4269875056 + 2**31) // 2**32)


def P(x: int) -> int:
    x = max(-2047, min(2047, x))
    e = ODDS[abs(x)]
    low = max(1, 2**16 * e // (2**32 + e))
    return low if x <= 0 else 2**16 - low


ALL = [P(x) for x in range(-2047, 2048)]


def L(p: int) -> int:
    return max(bisect_right(ALL, p) - 1, 0) - 2047


class Stream:
    def __init__(self, stream: bytes) -> None:
        self.stream, self.size, self.asked = stream + bytes(16), len(stream), 8
        self.range, self.code = 2**64 - 1, int.from_bytes(self.stream[:8], "big")

    def decide(self, p: int) -> int:
        ones = self.range // 2**16 * p
        bit = int(self.code < ones)
        if bit:
            self.range = ones
        else:
            self.code, self.range = self.code - ones, self.range - ones
        if self.range < 2**32:
            self.range *= 2**32
            self.code = self.code * 2**32 + int.from_bytes((self.stream + bytes(8))[self.asked :][:4], "big")
            self.asked += 4
        return bit

    def by(self, counter: list[int]) -> int:
        bit = self.decide(max(1, counter[0] // 64))
        move(counter, bit)
        return bit

    def tree(self, counters: dict) -> int:
        i = 1
        for _ in range(6):
            i = 2 * i + self.by(counters[i])
        leaf = i - 64
        if leaf < 16:
            return leaf
        b, second = (leaf - 16) // 2 + 4, (leaf - 16) % 2
        v = 2 + second
        for _ in range(b - 1):
            v = 2 * v + self.decide(2**15)
        return v

    def mixed(self, counters: list[list[int]], mixers: list[tuple[list[int], int]]) -> int:
        """Mixers with the weights of the chosen set and the rate."""
        logits = [L(counter[0] // 64) for counter in counters]
        sums = [sum(w * x for w, x in zip(weights, logits, strict=True)) // 2**16 for weights, _ in mixers]
        bit = self.decide(P(sum(sums) // len(sums)))
        for m, (weights, rate) in zip(sums, mixers, strict=True):
            for i, x in enumerate(logits):
                change = (x * (2**16 * bit - P(m)) * rate + 2**17) // 2**18
                weights[i] = max(-(2**20), min(2**20, weights[i] + change))
        for counter in counters:
            move(counter, bit)
        return bit


def move(counter: list[int], bit: int) -> None:
    q, s = counter
    rate = 2**16 // (s + 2)
    counter[0] = q + (2**22 - 1 - q) * rate // 2**16 if bit else q - q * rate // 2**16
    counter[1] = min(255, s + 1)


def fresh() -> defaultdict:
    return defaultdict(lambda: [2**21, 0])


def quarters(v: int) -> int:
    b = v.bit_length() - 1
    return 4 * b + 4 * v // 2**b % 4


def gaps(stream: Stream, rows: int, columns: int) -> list[list[int]]:
    counts, zeros, sizes, before, matrix = defaultdict(fresh), defaultdict(fresh), fresh(), 0, []
    for _ in range(rows):
        before = left = stream.tree(counts[before.bit_length()])
        row: list[int] = []
        for k in range(left, 0, -1):
            r = columns - len(row)
            row += [0] * (0 if r == k else stream.tree(zeros[min(63, quarters(r) - quarters(k))]))
            negative = stream.decide(2**15)
            row.append((1 + stream.tree(sizes)) * (-1 if negative else 1))
        matrix.append(row + [0] * (columns - len(row)))
    return matrix


def B(n: int) -> int:
    return n if n < 4 else min(31, 2 * (n.bit_length() - 1) + (n >> (n.bit_length() - 2)) % 2)


def mixing(stream: Stream, rows: int, columns: int, places: int, g: int, kept: int, largest: int) -> list[list[int]]:
    begin = max(1, min(2**22 - 1, (kept + 1) * 2**22 // (rows * columns + 2)))
    is_kept = defaultdict(lambda: [begin, 0])
    signs, sizes, octaves, exact = fresh(), fresh(), fresh(), fresh()
    weights = defaultdict(lambda: [11796] * 5)
    other_weights = defaultdict(lambda: [13107] * 5)
    sign_weights = [13107] * 4
    m = [[0] * columns for _ in range(rows)]

    def at(r: int, c: int) -> int:
        return m[r][c] if r >= 0 and 0 <= c < columns else 0

    def S(v: int) -> int:
        return (v > 0) + 2 * (v < 0)

    def mean(levels: list[int]) -> int:
        levels = [abs(v) for v in levels if v]
        return min(15, 2 * sum(levels) // len(levels)) if levels else 0

    for r in range(rows):
        for c in range(columns):
            v = lambda i, r=r, c=c: at(r, c + i)  # noqa: E731
            u = lambda i, r=r, c=c: at(r - 1, c + i)  # noqa: E731
            n = lambda i, c=c: sum(at(row, c + i) != 0 for row in range(rows))  # noqa: E731
            first = c - c % places
            R = sum(x != 0 for x in m[r])
            K = sum(x != 0 for x in m[r][first : first + places])
            C = sum(x != 0 for row in m for x in row[first : first + places])
            bits = [v(-1), v(-2), 0, 0, 0, u(0), u(1), u(-1)]
            if g:
                bits[2:5] = v(-g), v(1 - g), v(-1 - g)
                A = sum(map(n, [-1, 1, *range(g - 1, g + 2), *range(-g - 1, -g + 2)]))
                window = [*range(-3, 0), *range(-g - 3, -g + 4), *range(-2 * g - 3, -2 * g + 4)]
            else:
                bits[2:5] = v(-3), u(-2), u(2)
                A = sum(map(n, [-2, -1, 1, 2]))
                window = [*range(-12, 0)]
            W = sum(v(i) != 0 for i in window)
            N = sum(2**i for i, x in enumerate(bits) if x)
            contexts = [(B(R), B(n(0))), N, (W, B(A)), (W, B(R)), (min(15, K), B(C), B(n(0)))]
            counters = [is_kept[i, context] for i, context in enumerate(contexts)]
            if not stream.mixed(counters, [(weights["row", B(r)], 4), (weights["window", W], 4)]):
                continue
            column = [m[row][c] for row in range(rows)]
            sums = [max(-4, min(4, sum((x > 0) - (x < 0) for x in line))) for line in (m[r], column)]
            above = S(v(-g)) if g else S(v(-2))
            corners = (S(v(-g - 1)), S(v(1 - g))) if g else (0, 0)
            contexts = [(S(v(-1)), above, S(u(0))), tuple(sums), r, (*corners, above, S(v(-1)))]
            counters = [signs[i, context] for i, context in enumerate(contexts)]
            negative = stream.mixed(counters, [(sign_weights, 16)])
            t = 1
            near = min(15, max(abs(v(-1)), abs(v(-g)) if g else 0))
            contexts = [0, mean(m[r]), mean(column), near, B(R) // 2]
            while t < min(largest, 20):
                if not stream.mixed([sizes[i, t, x] for i, x in enumerate(contexts)], [(other_weights[t], 10)]):
                    break
                t += 1
            else:
                if t == 20 < largest:
                    b = 0
                    while b < 15 and stream.by(octaves[b]):
                        b += 1
                    got = "1"
                    for i in range(b):
                        got += str(stream.by(exact[b, got]) if i < 3 else stream.decide(2**15))
                    t = 20 + int(got, 2) - 1
            m[r][c] = -t if negative else t
    return m


def decode(packed: bytes) -> tuple[list[int], list[int] | None]:
    """The levels, flat, and those of the bias."""
    assert packed[0] == 2
    coder, value_type, rank, biased = packed[1] % 4, packed[1] // 4 % 3, packed[1] // 12 % 8 + 1, packed[1] // 96
    at, end = 2, len(packed) - (4 if coder == 2 else 2)
    assert (crc32(packed[:end]) % 2 ** (8 * (len(packed) - end))).to_bytes(len(packed) - end, "little") == packed[end:]

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            at += 1
            value += packed[at - 1] % 128 << shift
            shift += 7
            if packed[at - 1] < 128:
                return value

    def step() -> None:
        nonlocal at
        at += 4 if packed[at + 1] >= 128 else 2

    shape = [number() for _ in range(rank)]
    kept, largest = number(), number()
    if value_type != 2:
        step()
    g = number() if coder == 3 else 0
    bias = None
    if biased:
        bias = number(), number()
        step()
    groups = [(number(), number(), number()) for _ in range(number())] if coder == 2 else []
    flat = [0] * prod(shape)
    matrix = []
    for rows, _, size in groups:
        stream = Stream(packed[at : at + size])
        matrix += gaps(stream, rows, prod(shape[1:]))
        assert size <= stream.asked <= size + 8
        at += size
    if groups:
        flat = [*chain(*matrix)]
    stream = Stream(packed[at:end])
    places = prod(shape[2:])
    rows, columns = (shape[1], shape[0] * places) if coder == 1 else (shape[0], prod(shape[1:]))
    if coder != 2 and kept:
        flat = [*chain(*mixing(stream, rows, columns, places, g, kept, largest))]
        if coder == 1:  # [second][first][places] -> [first][second][places]
            first, second = shape[:2]
            mixed = flat
            kernel = lambda i, j: mixed[(j * first + i) * places : (j * first + i + 1) * places]  # noqa: E731
            flat = [*chain(*(kernel(i, j) for i in range(first) for j in range(second)))]
    levels = None
    if bias:
        levels = mixing(stream, 1, shape[0], 1, 0, *bias)[0] if bias[0] else [0] * shape[0]
    if (kept and coder != 2) or (bias and bias[0]):
        assert end - at <= stream.asked <= end - at + 8
    else:
        assert end == at
    return flat, levels
