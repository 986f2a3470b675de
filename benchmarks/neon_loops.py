"""Analyses the innermost loops of the NEON kernels with llvm-mca: a model of the processor, not a measurement on one.

Command: python benchmarks/neon_loops.py build/wheel-aarch64 --llvm-mca llvm-mca-19 --json docs/results/neon-loops.json
n: 1, a model of the processor
Hardware: any with llvm-mca 19; 64-bit ARM code built by `make test-aarch64`
Date: 2026-11-30

For each kernel, of floats, of halves (a multiply-add of 8 lanes) and of bytes (an sdot, four products at once, or,
where the processor has no sdot, an smull or smlal, eight products in 16 bits), the loop with the most multiply-adds is
taken out of the cross-compiled object and run by llvm-mca, which assumes that every load hits the first-level cache and
that branches are predicted. The peak is what the model reaches with multiply-adds on registers alone, so the share says
what loads, offsets and spills beside them cost.
"""

import argparse
import json
import re
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

OBJECTS = "CMakeFiles/gossamer_kernels.dir/native/kernels/{}.cc.o"
# llvm-mca's own model of cortex-a76 is the one of cortex-a57, which has half its multiply-add units; neoverse-n1 is the
# same core for servers, with a model of its own since LLVM 17.
PROCESSORS = ["cortex-a72", "cortex-a76", "neoverse-n1"]
KERNEL = re.compile(r"^[0-9a-f]+ <.*::(SpmmRows|ColumnShiftRows|HalfRows)<(.*?)>\(.*>:\n((?:.+\n)*)", re.MULTILINE)
DEPTHWISE = re.compile(r"^[0-9a-f]+ <.*::DirectChannels<.*::DirectStride([12])>\(.*>:\n((?:.+\n)*)", re.MULTILINE)
BRANCH = re.compile(r"(b\.\w+|cbn?z|tbn?z|b)\s+(?:\S+,\s+)*([0-9a-f]+) <")
ITERATIONS = 200
REGISTER_SUMS = 16
# What multiplies and adds on registers alone, by what the sums are made of.
PEAK_INSTRUCTIONS = {
    "": "fmla v{}.4s, v30.4s, v31.4s",
    "fp16 ": "fmla v{}.8h, v30.8h, v15.h[0]",
    "int8 ": "sdot v{}.4s, v30.16b, v31.4b[0]",
    "int8 by pairs ": "smlal v{}.8h, v30.8b, v31.8b",
}


@dataclass
class Loop:
    """`multiply_adds` and the rest count instructions of one pass; `cycles` and `share` are per processor."""

    kernel: str
    multiply_adds: int
    loads: int
    spills: int
    instructions: int
    cycles: dict[str, float]
    share: dict[str, float]


def disassemble(objdump: str, file: Path) -> str:
    command = [objdump, "-d", "-C", "--no-show-raw-insn", str(file)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def innermost_loop(listing: str) -> list[str]:
    """The instructions from the target of a backward branch to the branch, with the most multiply-adds and no other
    branch between; empty if no loop multiplies."""
    lines = [line.split(":\t", 1) for line in listing.splitlines() if ":\t" in line]
    addresses = [int(address, 16) for address, _ in lines]
    instructions = [re.sub(r"\s*//.*", "", instruction).strip() for _, instruction in lines]
    best: list[str] = []
    for last, instruction in enumerate(instructions):
        branch = BRANCH.match(instruction)
        if branch is None or int(branch[2], 16) not in addresses[: last + 1]:
            continue
        body = instructions[addresses.index(int(branch[2], 16)) : last + 1]
        if not any(BRANCH.match(other) for other in body[:-1]) and multiply_adds(body) > multiply_adds(best):
            best = [*body[:-1], re.sub(r"[0-9a-f]+ <.*", ".Lloop", body[-1])]
    return best


def multiply_adds(body: list[str]) -> int:
    """With those that begin a sum, which are products alone and take the same unit."""
    return sum(instruction.startswith(("fmla", "fmul", "sdot", "smull", "smlal")) for instruction in body)


def cycles(mca: str, processor: str, body: list[str]) -> float | None:
    """Cycles of one pass, None if this llvm-mca does not know the processor."""
    command = [
        mca,
        "-mtriple=aarch64",
        f"-mcpu={processor}",
        "-mattr=+dotprod,+fullfp16",
        f"-iterations={ITERATIONS}",
        "-",
    ]
    text = ".Lloop:\n" + "\n".join(body) + "\n"
    finished = subprocess.run(command, input=text, capture_output=True, text=True)
    found = re.search(r"Total Cycles:\s+(\d+)", finished.stdout)
    if finished.returncode != 0 or found is None:
        raise SystemExit(f"llvm-mca failed on {processor}:\n{finished.stderr}")
    unknown = "not a recognized processor" in finished.stderr
    return None if unknown else int(found[1]) / ITERATIONS


def peaks(mca: str, sums: str = "") -> dict[str, float]:
    """Multiply-adds of 4 lanes a cycle, per processor that has a model."""
    body = [PEAK_INSTRUCTIONS[sums].format(i) for i in range(REGISTER_SUMS)] + ["b .Lloop"]
    found = {processor: cycles(mca, processor, body) for processor in PROCESSORS}
    return {processor: round(REGISTER_SUMS / taken, 2) for processor, taken in found.items() if taken is not None}


def analyse(mca: str, peak: dict[str, float], kernel: str, body: list[str]) -> Loop:
    count = multiply_adds(body)
    taken = {processor: cycles(mca, processor, body) or 0.0 for processor in peak}
    memory = [instruction for instruction in body if re.match(r"(ld|st)[rpu1-4]", instruction)]
    return Loop(
        kernel=kernel,
        multiply_adds=count,
        loads=sum(instruction.startswith("ld") for instruction in memory),
        spills=sum("[sp" in instruction for instruction in memory),
        instructions=len(body),
        cycles=taken,
        share={processor: round(count / taken[processor] / peak[processor], 3) for processor in peak},
    )


def row_kernels(mca: str, listing: str) -> list[Loop]:
    """The loops of one object's row kernels."""
    kernels = {}
    for name, arguments, body in KERNEL.findall(listing):
        if "RoundedChain" in arguments:
            continue
        numbers = [int(number) for number in re.findall(r"\b(\d+)ul", arguments)]
        rows, vectors = (numbers[0], numbers[1]) if name == "SpmmRows" else (1, numbers[0])
        sums = "int8 " if "ByteCall<true>" in arguments else "int8 by pairs " if "ByteCall" in arguments else ""
        sums = "fp16 " if name == "HalfRows" else sums
        if loop := innermost_loop(body):
            kind = "3x3" if name == "ColumnShiftRows" else "1x1"
            kernels[(sums, kind, rows, vectors if name == "HalfRows" else 4 * vectors)] = loop
    peak = {sums: peaks(mca, sums) for sums in {kernel[0] for kernel in kernels}}
    return [
        analyse(mca, peak[sums], f"{sums}{kind}, {rows} x {pixels} pixels", loop)
        for (sums, kind, rows, pixels), loop in sorted(kernels.items())
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path, help="a CMake folder built for aarch64")
    parser.add_argument("--llvm-mca", default="llvm-mca")
    parser.add_argument("--objdump", default="aarch64-linux-gnu-objdump")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    peak = peaks(options.llvm_mca)
    loops = [
        loop
        for file in ("convolution", "quantised_convolution")
        for loop in row_kernels(options.llvm_mca, disassemble(options.objdump, options.build / OBJECTS.format(file)))
    ]
    listing = disassemble(options.objdump, options.build / OBJECTS.format("depthwise"))
    for stride, body in DEPTHWISE.findall(listing):
        loops.append(analyse(options.llvm_mca, peak, f"depthwise 3x3, stride {stride}", innermost_loop(body)))
    print("multiply-adds a cycle at most: " + ", ".join(f"{name} {value}" for name, value in peak.items()))
    print(f"{'kernel':38}{'fmla':>5}{'loads':>6}{'spills':>7}{'all':>5}" + "".join(f"{name:>13}" for name in peak))
    for loop in loops:
        counts = f"{loop.multiply_adds:5}{loop.loads:6}{loop.spills:7}{loop.instructions:5}"
        print(f"{loop.kernel:38}{counts}" + "".join(f"{share:13.0%}" for share in loop.share.values()))
    if options.json:
        version = subprocess.run([options.llvm_mca, "--version"], capture_output=True, text=True).stdout
        facts = {
            "llvm": re.findall(r"LLVM version (\S+)", version),
            "peak": peak,
            "loops": [asdict(loop) for loop in loops],
        }
        options.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
