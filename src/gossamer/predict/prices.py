"""Prices of terms from measured times."""

from collections.abc import Sequence

import numpy as np

from gossamer.predict.terms import Terms

SWEEPS = 3000


def fit(samples: Sequence[tuple[Terms, float]]) -> dict[str, float]:
    """Prices, none negative, that make the *relative* errors of the times least in the mean square.

    Relative, because the smallest layers matter as much as the largest in a network of small ones.

    Args:
        samples: terms of one class with the seconds that were measured.
    """
    names = list(samples[0][0].amounts)
    times = np.array([seconds for _, seconds in samples])
    amounts = np.array([[terms.amounts[name] for name in names] for terms, _ in samples]) / times[:, None]
    scale = np.maximum(np.linalg.norm(amounts, axis=0), 1e-300)
    prices = _nonnegative_least_squares(amounts / scale, np.ones(len(samples))) / scale
    return {name: float(price) for name, price in zip(names, prices, strict=True)}


def _nonnegative_least_squares(
    matrix: "np.ndarray[tuple[int, int], np.dtype[np.float64]]", target: "np.ndarray[tuple[int], np.dtype[np.float64]]"
) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Minimises |matrix x - target| over x >= 0, coordinate by coordinate; few unknowns: many sweeps cost nothing."""
    gram, right = matrix.T @ matrix, matrix.T @ target
    x = np.zeros(matrix.shape[1])
    for _ in range(SWEEPS):
        for i in range(len(x)):
            if gram[i, i] > 0:
                x[i] = max(0.0, x[i] + (right[i] - gram[i] @ x) / gram[i, i])
    return x
