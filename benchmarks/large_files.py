"""Prunes a network in files that is larger than what is held of it: memory, time beside cp, and that it is the same.

The network is made on the spot: 20 shards of a Llama of random weights with an index. "cold" means that the system was
told to forget the source's pages before (posix_fadvise); times are of whole processes, `sync` is what it then takes to
have everything on the disk, which `gossamer prune` waits for by itself. Memory is VmHWM of the process, less what it
was when everything was imported, before the first file was opened.

Command: python benchmarks/large_files.py make /tmp/large BF16 8 && python benchmarks/large_files.py measure /tmp/large
n: 1
Hardware: AMD EPYC (Zen 4), 2 cores of which one was taken, 24 GB of memory, virtual disk
Date: 2026-11-28
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

SHARDS = 20
HIDDEN, INTERMEDIATE, VOCABULARY = 4096, 11008, 32000
GIGABYTE = 10**9
BYTES = {"BF16": 2, "F16": 2, "F32": 4}
PROGRAM = """
import json, re, sys
from pathlib import Path
import gossamer.cli.main, gossamer.files, gossamer.cli.progress, rich.table, rich.progress
if {model}:
    import gossamer.prune.prunable, torch, transformers
    transformers.LlamaForCausalLM
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)) / 1024
before = peak()
sys.argv = ["gossamer", "prune", {source!r}, "-o", {out!r}, "--sparsity", "0.5", *{options!r}]
try:
    gossamer.cli.main.main()
finally:
    Path({result!r}).write_text(json.dumps({{"imports_mib": before, "peak_mib": peak()}}))
"""


def shapes(scale: int) -> list[dict[str, tuple[int, int]]]:
    """The tensors of each shard; `scale` divides all sizes."""
    hidden, intermediate, vocabulary = HIDDEN // scale, INTERMEDIATE // scale, VOCABULARY // scale
    shards = [{"model.embed_tokens.weight": (vocabulary, hidden), "lm_head.weight": (vocabulary, hidden)}]
    for layer in range(SHARDS - 1):
        attention = {f"self_attn.{name}_proj": (hidden, hidden) for name in "qkvo"}
        linear = {"gate": (intermediate, hidden), "up": (intermediate, hidden), "down": (hidden, intermediate)}
        layers = {**attention, **{f"mlp.{name}_proj": shape for name, shape in linear.items()}}
        shards.append({f"model.layers.{layer}.{name}.weight": shape for name, shape in layers.items()})
    return shards


def make(folder: Path, kind: str, gigabytes: float) -> None:
    """Writes the network; of 8 GB in bfloat16 with all its sizes, of fewer with smaller ones."""
    whole = sum(rows * columns for shard in shapes(1) for rows, columns in shard.values()) * BYTES[kind]
    scale = max(1, round((whole / (gigabytes * GIGABYTE)) ** 0.5))
    largest = max(rows * columns for shard in shapes(scale) for rows, columns in shard.values())
    normal = np.random.default_rng(0).standard_normal(min(1 << 24, largest), dtype=np.float32)
    source = folder / "source"
    source.mkdir(parents=True)
    index = {}
    for number, shard in enumerate(shapes(scale)):
        file = f"model-{number + 1:05d}-of-{SHARDS:05d}.safetensors"
        index.update(dict.fromkeys(shard, file))
        header, end = {}, 0
        for name, (rows, columns) in shard.items():
            header[name] = {
                "dtype": kind,
                "shape": [rows, columns],
                "data_offsets": [end, end := end + rows * columns * BYTES[kind]],
            }
        text = json.dumps(header).encode()
        with (source / file).open("wb") as written:
            written.write(len(text).to_bytes(8, "little") + text)
            for place, (rows, columns) in enumerate(shard.values()):
                # The same numbers, begun elsewhere, times another size.
                block = np.roll(normal, 104729 * (number * 16 + place)) * np.float32(columns**-0.5 * (1 + place / 8))
                bits = (block.view(np.uint32) >> 16).astype(np.uint16) if kind == "BF16" else block
                bits = block.astype(np.float16) if kind == "F16" else bits
                left = rows * columns
                while left:
                    written.write(bits[:left].data)
                    left -= min(left, len(bits))
    (source / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    configuration = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN // scale,
        "intermediate_size": INTERMEDIATE // scale,
        "vocab_size": VOCABULARY // scale,
        "num_hidden_layers": SHARDS - 1,
        "num_attention_heads": 8,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(configuration))
    os.sync()


def forget(folder: Path) -> None:
    for file in folder.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def timed(*command: str) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return round(time.perf_counter() - start, 2)


def prune(folder: Path, *options: str, model: bool = False) -> dict[str, float]:
    out, result = folder / "pruned", folder / "memory.json"
    shutil.rmtree(out, ignore_errors=True)
    program = PROGRAM.format(
        source=str(folder / "source"), out=str(out), options=options, result=str(result), model=model
    )
    seconds = timed(sys.executable, "-c", program)
    memory = json.loads(result.read_text())
    return {"seconds": seconds, **{name: round(value, 1) for name, value in memory.items()}}


def measure(folder: Path) -> None:
    """Prints times and memory as a line of JSON."""
    source, copy = folder / "source", folder / "copy"
    size = sum(file.stat().st_size for file in source.iterdir())
    found: dict[str, object] = {"bytes": size, "cpu": processor(), "cache": "cold"}
    for turn in range(2):
        shutil.rmtree(copy, ignore_errors=True)
        os.sync()
        forget(source)
        found[f"cp_{turn}"] = {"seconds": timed("cp", "-r", str(source), str(copy)), "sync": timed("sync")}
        shutil.rmtree(copy)
        print(found, file=sys.stderr)
        if not turn:
            os.sync()
            forget(source)
            found["prune"] = prune(folder)
    print(json.dumps(found))


def others(folder: Path) -> None:
    """Prints memory, and times that nothing is compared with, of other ways to prune it."""
    found: dict[str, object] = {}
    for name, options in {"2:4": ("--structure", "2:4"), "layerwise": ("--layerwise",)}.items():
        found[name] = prune(folder, *options)
    shutil.copyfile(folder / "config.json", folder / "source" / "config.json")
    found["by its layers"] = prune(folder, model=True)
    (folder / "source" / "config.json").unlink()
    print(json.dumps(found))


def same(folder: Path) -> None:
    """Verifies that the result is what pruning in memory gives, of a network that fits there."""
    import torch
    from safetensors.torch import load_file

    import gossamer

    prune(folder)
    before, after = (
        {
            name: tensor
            for file in sorted((folder / made).glob("*.safetensors"))
            for name, tensor in load_file(file).items()
        }
        for made in ("source", "pruned")
    )
    weights = {name: before[name] for name in sorted(before) if re.search("proj", name)}
    kept = -(-sum(weight.numel() for weight in weights.values()) // 2)
    masks = gossamer.keep_largest(weights, kept)
    equal = all(torch.equal(after[name], torch.where(masks[name], weight, 0)) for name, weight in weights.items())
    rest = all(torch.equal(after[name], tensor) for name, tensor in before.items() if name not in weights)
    bytes_ = sum(tensor.numel() * tensor.element_size() for tensor in before.values())
    print(json.dumps({"bytes": bytes_, "kept": kept, "same as in memory": equal and rest}))


def processor() -> str:
    found = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return found.group(1) if found else "unknown"


if __name__ == "__main__":
    command, folder = sys.argv[1], Path(sys.argv[2])
    if command == "make":
        make(folder, sys.argv[3], float(sys.argv[4]))
    else:
        {"measure": measure, "others": others, "same": same}[command](folder)
