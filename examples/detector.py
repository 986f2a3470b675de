"""A pruned detector on a device: from a run of `shapes-detector` to boxes, with numpy and onnxruntime alone.

    gossamer compress shapes-detector --target-sparsity 0.9 --out runs/detector
    gossamer export examples/detector.py:network -o detector.onnx
    python examples/detector.py --draw image.npy
    python examples/detector.py detector.onnx image.npy

The file decodes boxes; scores, and boxes that overlap, are dealt with here, outside of it.
"""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

RUN = Path("runs/detector")
SIDE = 320
"""Pixels on a side of the images on the device; the network was trained on 96 and takes any multiple of 32."""
NAMES = ("disk", "rectangle", "triangle", "ring", "cross")

Array = npt.NDArray[Any]


class Box(NamedTuple):
    """A shape that was found."""

    name: str
    score: float
    left: float
    top: float
    right: float
    bottom: float


def network() -> tuple[Any, Any]:
    """The run's last round, for images of this size: what `gossamer export` is given."""
    import torch

    import gossamer
    from gossamer.tasks.shapes_detector import shapes_detector

    model = shapes_detector()
    gossamer.load_round(RUN, -1, model)
    return model.eval(), torch.zeros(1, 3, SIDE, SIDE)


def boxes(output: Array, lowest_score: float = 0.3, largest_overlap: float = 0.6) -> list[Box]:
    """What was found in one image, best first.

    Args:
        output: (positions, 4 + classes): corners in pixels, and logits.
        lowest_score: probability below which a position found nothing.
        largest_overlap: intersection over union that two boxes of a class may have.
    """
    classes = output[:, 4:].argmax(1)
    scores = 1 / (1 + np.exp(-output[:, 4:].max(1)))
    left = np.flatnonzero(scores >= lowest_score)
    left = left[np.argsort(-scores[left], kind="stable")]
    found = []
    while len(left):
        best, *_ = left
        found.append(Box(NAMES[classes[best]], float(scores[best]), *(float(entry) for entry in output[best, :4])))
        apart = overlaps(output[best, :4], output[left, :4]) <= largest_overlap
        apart[0] = False
        left = left[apart | ((classes[left] != classes[best]) & (left != best))]
    return found


def overlaps(box: Array, others: Array) -> Array:
    """Intersection over union with each of the others; shapes (4,), (n, 4) -> (n,)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = sides.clip(0).prod(1)
    areas = (others[:, 2:] - others[:, :2]).prod(1)
    return shared / ((box[2:] - box[:2]).prod() + areas - shared)  # type: ignore[no-any-return]


def prepared(image: Array) -> Array:
    """Bytes (3, height, width) -> the network's input, (1, 3, height, width) from -1 to 1."""
    return image[None].astype(np.float32) / 127.5 - 1


def draw(path: Path) -> None:
    """Writes an image to look for shapes in."""
    from gossamer.tasks.detection.shapes import shapes

    images, _ = shapes(1, SIDE, seed=4)
    np.save(path, images[0].numpy())


def main(file: str, image: str) -> list[Box]:
    """Prints what is found in an image."""
    import gossamer_runtime

    session = gossamer_runtime.Session(file, threads=1)
    (output,) = session.run(None, {session.get_inputs()[0].name: prepared(np.load(image))})
    found = boxes(output[0])
    for box in found:
        corners = ", ".join(f"{entry:.0f}" for entry in box[2:])
        print(f"{box.name}, {box.score:.0%} sure, at {corners}")
    return found


if __name__ == "__main__":
    if sys.argv[1] == "--draw":
        draw(Path(sys.argv[2]))
    else:
        main(*sys.argv[1:])
