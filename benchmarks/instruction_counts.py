"""Counts the instructions that whole layers take on 64-bit ARM, under qemu's user mode: exact, and not a time.

Command: python benchmarks/instruction_counts.py build/wheel-aarch64 --json docs/results/instruction-counts.json
n: 1, counts are exact
Hardware: any with qemu 7.2; 64-bit ARM code built by `make test-aarch64`
Date: 2026-11-28

qemu logs each block of instructions when it is translated and each execution of a block. `kernel_bench --count` runs a
layer twice and in another process three times; what is left of the difference is one run of the layer, staging and
storing included, but for a few instructions of the bench around it.
"""

import argparse
import json
import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

LAYERS = {
    "1x1, 64 -> 256 at 56": "conv 64 56 56 256 1 1 0 1 1",
    "1x1, 256 -> 64 at 56": "conv 256 56 56 64 1 1 0 1 1",
    "1x1, 512 -> 128 at 28": "conv 512 28 28 128 1 1 0 1 1",
    "1x1, 1024 -> 256 at 14": "conv 1024 14 14 256 1 1 0 1 1",
    "1x1, 2048 -> 512 at 7": "conv 2048 7 7 512 1 1 0 1 1",
    "3x3, 64 -> 64 at 56": "conv 64 56 56 64 3 1 1 1 1",
    "3x3, 256 -> 256 at 14": "conv 256 14 14 256 3 1 1 1 1",
    "3x3, 512 -> 512 at 7": "conv 512 7 7 512 3 1 1 1 1",
    "depthwise 3x3, 128 at 56": "conv 128 56 56 128 3 1 1 128 1",
    "depthwise 3x3, 512 at 14": "conv 512 14 14 512 3 1 1 512 1",
    "depthwise 3x3 / 2, 128 at 56": "conv 128 56 56 128 3 2 1 128 1",
}
LANES = 4
MULTIPLY_ADD = re.compile(rb"fmla\b.*\.(4s|8h)|smull|smlal|\.byte")


@dataclass(frozen=True)
class Count:
    """Instructions executed. `fmla` are those on vectors of 4 floats or 8 halves, smull and smlal of 8 bytes, and sdot,
    which qemu 7.2 runs but calls .byte."""

    instructions: int
    fmla: int
    loads: int
    stores: int

    def __sub__(self, other: "Count") -> "Count":
        return Count(*(mine - theirs for mine, theirs in zip(self.tuple(), other.tuple(), strict=True)))

    def tuple(self) -> tuple[int, int, int, int]:
        return self.instructions, self.fmla, self.loads, self.stores


def count_log(lines: Iterator[bytes]) -> Count:
    """Sums a log of `-d nochain,in_asm,exec`. A block is known by where qemu put it together with where it came from,
    since memory is used again once the cache of translations was emptied."""
    translated: dict[bytes, list[bytes]] = {}
    executions: Counter[bytes] = Counter()
    contents: dict[bytes, list[bytes]] = {}
    block: list[bytes] = []
    for line in lines:
        if line.startswith(b"Trace "):
            key = line.split(b"/", 2)[0] + line.split(b"/", 2)[1]
            executions[key] += 1
            if key not in contents:
                contents[key] = translated[line.split(b"/", 2)[1].lstrip(b"0")]
        elif line.startswith(b"IN:"):
            block = []
        elif line.startswith(b"0x"):
            address, _, instruction = line.partition(b":")
            if not block:
                translated[address[2:].lstrip(b"0")] = block
            block.append(instruction.split(None, 1)[1].strip())
    total = Counter({"instructions": 0, "fmla": 0, "loads": 0, "stores": 0})
    for key, times in executions.items():
        for instruction in contents[key]:
            total["instructions"] += times
            total["fmla"] += times * bool(MULTIPLY_ADD.match(instruction))
            total["loads"] += times * instruction.startswith(b"ld")
            total["stores"] += times * instruction.startswith(b"st")
    return Count(**total)


def run(
    bench: Path, shape: str, density: float, repeats: int, qemu: str, libraries: str, more: list[str]
) -> tuple[Count, float]:
    """What a whole process of the bench executes, and the layer's multiply-adds."""
    with tempfile.TemporaryDirectory() as folder:
        shapes, log = Path(folder, "shapes.txt"), Path(folder, "log")
        shapes.write_text(shape + "\n")
        os.mkfifo(log)
        command = [qemu, "-L", libraries, "-d", "nochain,in_asm,exec", "-D", str(log), str(bench), str(shapes)]
        options = ["--count", "--density", str(density), "--repeats", str(repeats), *more]
        with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as process:
            with log.open("rb") as lines:
                count = count_log(lines)
            assert process.stdout is not None
            multiply_adds = float(process.stdout.read().rsplit(":", 1)[1])
        if process.returncode != 0:
            raise SystemExit(f"{bench} ended with status {process.returncode}")
    return count, multiply_adds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path, help="a CMake folder built for aarch64")
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--only", default="", help="only layers whose name contains this")
    parser.add_argument("--qemu", default="qemu-aarch64-static")
    parser.add_argument("--libraries", default="/usr/aarch64-linux-gnu", help="the system root of the cross compiler")
    parser.add_argument("--int8", action="store_true", help="count the kernels of bytes")
    parser.add_argument("--pairs", action="store_true", help="with --int8: as processors without sdot do")
    parser.add_argument("--half", action="store_true", help="count the kernels of fp16")
    parser.add_argument("--blocks", action="store_true", help="with zeros in blocks of four input channels")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    chosen = {name: getattr(options, name) for name in ("int8", "pairs", "half", "blocks")}
    more = [f"--{name}" for name, wanted in chosen.items() if wanted]
    bench = options.build / "native/bench/kernel_bench"
    version = subprocess.run([options.qemu, "--version"], capture_output=True, text=True, check=True).stdout
    layers = []
    print(f"{'layer':26}{'multiply-adds':>14}{'instructions':>14}{'a 4':>6}{'fmla':>7}{'loads':>7}{'stores':>7}")
    for name, shape in LAYERS.items():
        if options.only not in name:
            continue
        twice, multiply_adds = run(bench, shape, options.density, 1, options.qemu, options.libraries, more)
        thrice, _ = run(bench, shape, options.density, 2, options.qemu, options.libraries, more)
        count = thrice - twice
        # For 4 multiply-adds that are asked for, so lanes beyond the image count as a cost; 1 would be the least.
        share = [LANES * number / multiply_adds for number in count.tuple()]
        print(f"{name:26}{multiply_adds:14.0f}{count.instructions:14}{share[0]:6.2f}", end="")
        print("".join(f"{number:7.2f}" for number in share[1:]), flush=True)
        layers.append({"layer": name, "multiply_adds": multiply_adds, **asdict(count)})
        if options.json:
            facts = {"qemu": version.splitlines()[0], "density": options.density, "more": more, "layers": layers}
            options.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
