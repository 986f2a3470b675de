"""Writes the fuzzer's first inputs: weights of every kind, packed by the numpy writer, with a recipe before each.

python make_seeds.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
from gossamer_runtime import coding, weights

# Rank 2 for products, 3 and 4 for convolutions; last a weight with more columns than 16 bits address.
SHAPES = [
    (5, 7),
    (16, 33),
    (8, 4, 3),
    (6, 5, 1, 1),
    (9, 6, 3, 3),
    (16, 1, 3, 3),
    (4, 3, 7, 7),
    (12, 4, 5, 1),
    (1, 1),
    (2, 70000),
]
RECIPE_BYTES = 16
# As packer_fuzz.cc numbers them.
USES = ("fully connected", "matmul", "stem", "pooling", "convolution")


def seeds(rng: np.random.Generator) -> list[bytes]:
    """One input for each shape, density, value type and use, and a few coded ones. Uses of int8 are numbered likewise:
    products, pooling, convolutions."""
    made = []
    for shape in SHAPES:
        for density in (0.0, 0.01, 0.2, 1.0):
            if np.prod(shape) > 10_000 and density > 0.01:
                continue
            for dtype in (np.float32, np.float16, np.int8):
                weight = (30 * rng.standard_normal(shape)).astype(dtype)
                kept = rng.random(shape) < density
                # Every other weight of int8 in blocks, which are stored as quads.
                if dtype == np.int8 and len(made) % 2:
                    kept = kept[:, ::4].repeat(4, axis=1)[:, : shape[1]]
                weight[~kept] = 0
                for use in range(len(USES)):
                    # Strides and dilations of 1, a padding of 1, an image of a few rows; the rest as it comes.
                    recipe = bytearray(rng.bytes(RECIPE_BYTES))
                    recipe[:2] = 1, use
                    if use >= USES.index("stem"):
                        groups = 7 if shape[1] == 1 and use != USES.index("stem") else 0
                        recipe[2:6] = groups, rng.choice([0x11, 0x22, 0x12]), 0b001001, 0b01010101
                        recipe[7:9] = rng.integers(3, 20), rng.integers(3, 130)
                    made.append(bytes(recipe) + weights.encode(weight, half=dtype == np.float16))
    for coder in range(3):  # coded weights, of a product and of a convolution
        for use, shape in ((0, (16, 33)), (4, (9, 6, 3, 3))):
            levels = rng.integers(-9, 10, shape) * (rng.random(shape) < 0.2)
            for step in (0.1, None):
                made.append(bytes([1, use, *rng.bytes(RECIPE_BYTES - 2)]) + coding.encode(levels, step, coder=coder))
    return made


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(np.random.default_rng(0))):
        (folder / f"seed-{number:03}").write_bytes(seed)
