"""Accuracy and F1 of a classifier over a whole set."""

from typing import Any

import torch
from torch import Tensor


class AccuracyAndF1:
    """The share of examples whose largest logit is the target's, and the mean over the classes of the harmonic mean of
    precision and recall (macro F1; a class that is neither there nor predicted is left out)."""

    def __init__(self) -> None:
        self._counts: Tensor | None = None

    def update(self, outputs: Any, targets: Tensor) -> None:
        logits: Tensor = getattr(outputs, "logits", outputs)
        classes = logits.shape[1]
        pairs = torch.bincount(targets * classes + logits.argmax(1), minlength=classes * classes)
        found = pairs.reshape(classes, classes)
        self._counts = found if self._counts is None else self._counts + found

    def compute(self) -> dict[str, float]:
        assert self._counts is not None
        right = self._counts.diagonal().double()
        seen = (self._counts.sum(0) + self._counts.sum(1)).double()
        return {
            "accuracy": float(right.sum() / self._counts.sum()),
            "f1": float((2 * right / seen)[seen > 0].mean()),
        }
