"""Cycles of what ran under qemu with `block_counts.c`: llvm-mca's model of a processor for every block of instructions,
times how often the block ran. Every load hits the first cache and every branch is guessed.

Command: none of its own; modelled_prices.py and modelled_network.py use it
n: 1, counts are exact and cycles a model
Hardware: any with llvm-mca 19
Date: 2026-11-29
"""

import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ITERATIONS = 40
"""Of each block, one after the other: what it takes between others."""
AT_ONCE = 400
"""Blocks for one call of llvm-mca."""
SELDOM = 2e-7
"""The share of all instructions below which a block is not modelled: it takes `USUAL` cycles an instruction."""
USUAL = 0.5
FEATURES = "+dotprod,+fullfp16,+lse,+rcpc,+crc,+aes,+sha2"


@dataclass(frozen=True)
class Looks:
    """What ran, at each look at the clock."""

    nanoseconds: NDArray[np.int64]
    """When."""
    cycles: NDArray[np.float64]
    """Since the beginning."""
    instructions: NDArray[np.int64]


def read_looks(prefix: Path, processor: str) -> Looks:
    """Reads what block_counts.c wrote to PREFIX.blocks and PREFIX.counts, and models the blocks."""
    blocks = Path(f"{prefix}.blocks").read_text(encoding="ascii").splitlines()
    words = np.fromfile(f"{prefix}.counts", dtype=np.uint64)
    times, numbers, counts, ends = [], [], [], []
    at = 0
    while at + 3 <= len(words):
        pairs = int(words[at + 2])
        record = words[at + 3 : at + 3 + 2 * pairs]
        times.append(int(words[at + 1]))
        numbers.append(record[::2].astype(np.int64))
        counts.append(record[1::2].astype(np.int64))
        ends.append(pairs)
        at += 3 + 2 * pairs
    lengths = np.array([block.count(" ") + 1 for block in blocks])
    totals = np.zeros(len(blocks), np.int64)
    for number, count in zip(numbers, counts, strict=True):
        np.add.at(totals, number, count)
    cost = block_costs(blocks, totals * lengths, processor)
    cycles = [float(count @ cost[number]) for number, count in zip(numbers, counts, strict=True)]
    instructions = [int(count @ lengths[number]) for number, count in zip(numbers, counts, strict=True)]
    return Looks(np.array(times), np.cumsum(cycles), np.cumsum(instructions))


def block_costs(blocks: Sequence[str], instructions: NDArray[np.int64], processor: str) -> NDArray[np.float64]:
    """Cycles of each block.

    Args:
        blocks: instructions as hexadecimal words.
        instructions: that ran of each block.
    """
    often = instructions > SELDOM * instructions.sum()
    wanted = sorted({block for block, enough in zip(blocks, often, strict=True) if enough})
    found: dict[str, float] = {}
    for begin in range(0, len(wanted), AT_ONCE):
        some = wanted[begin : begin + AT_ONCE]
        found |= dict(zip(some, modelled(some, processor), strict=True))
    return np.array([found.get(block, USUAL * (block.count(" ") + 1)) for block in blocks])


def modelled(blocks: Sequence[str], processor: str) -> list[float]:
    """Cycles of blocks by llvm-mca."""
    text = []
    for index, listing in enumerate(disassembled(blocks)):
        text += [f"# LLVM-MCA-BEGIN {index}", *listing, f"# LLVM-MCA-END {index}"]
    command = [
        "llvm-mca-19",
        "-mtriple=aarch64",
        f"-mcpu={processor}",
        f"-mattr={FEATURES}",
        f"-iterations={ITERATIONS}",
    ]
    command += ["-instruction-info=0", "-resource-pressure=0", "-call-latency=1"]
    command += ["-skip-unsupported-instructions=lack-sched", "-"]
    finished = subprocess.run(command, input="\n".join(text) + "\n", capture_output=True, text=True)
    regions = dict(re.findall(r"Code Region - (\d+)\n.*?Total Cycles:\s+(\d+)", finished.stdout, re.DOTALL))
    if len(regions) != len(blocks):
        raise SystemExit(f"llvm-mca modelled {len(regions)} of {len(blocks)} blocks:\n{finished.stderr[:2000]}")
    return [int(regions[str(index)]) / ITERATIONS for index in range(len(blocks))]


def disassembled(blocks: Sequence[str]) -> list[list[str]]:
    """The instructions of blocks as text. One that llvm-mc does not know counts as a nop."""
    lines = []
    for block in blocks:
        for word in block.split():
            lines.append(" ".join(f"0x{byte:02x}" for byte in bytes.fromhex(word)[::-1]))
    # Of words that it does not know it warns, and writes nothing: those are told apart by asking one by one.
    known = texts_of(sorted(set(lines)))
    texts = iter(known[line] for line in lines)
    return [[next(texts) for _ in block.split()] for block in blocks]


def texts_of(words: Iterable[str]) -> Mapping[str, str]:
    """Bytes of an instruction -> its text."""
    words = list(words)
    command = ["llvm-mc-19", "--disassemble", "-triple=aarch64", f"-mattr={FEATURES}"]
    finished = subprocess.run(command, input="\n".join(words), capture_output=True, text=True)
    unknown = {
        int(line) - 1 for line in re.findall(r"<stdin>:(\d+):\d+: warning: invalid instruction", finished.stderr)
    }
    texts = [line.strip() for line in finished.stdout.splitlines() if line.startswith("\t") and ".text" not in line]
    known = [word for index, word in enumerate(words) if index not in unknown]
    if len(known) != len(texts):
        raise SystemExit(f"llvm-mc read {len(texts)} of {len(known)} instructions:\n{finished.stderr[:1000]}")
    return {**dict.fromkeys(words, "nop"), **dict(zip(known, texts, strict=True))}
