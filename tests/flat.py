"""Settings given flat, by field, as the objects that take them: for tests that try many of them in turn."""

from dataclasses import fields
from typing import Any

from gossamer.job.training import DenseRound, Training
from gossamer.loop.stop import Stop
from gossamer.prune.cut import Cut
from gossamer.rewind.strategies import Retraining

OF_ROUNDS: dict[str, type] = {"stop": Stop, "cut": Cut, "retraining": Retraining}
OF_COMPRESS = {**OF_ROUNDS, "training": Training, "dense": DenseRound}


def of_rounds(**flat: Any) -> dict[str, Any]:
    """For `gossamer.rounds`."""
    return _grouped(OF_ROUNDS, flat)


def of_compress(**flat: Any) -> dict[str, Any]:
    """For `gossamer.job.compress.compress`."""
    return _grouped(OF_COMPRESS, flat)


def _grouped(kinds: dict[str, type], flat: dict[str, Any]) -> dict[str, Any]:
    found = dict(flat)
    for name, kind in kinds.items():
        own = {one.name: found.pop(one.name) for one in fields(kind) if one.name in found}  # type: ignore[arg-type]
        if own:
            found[name] = kind(**own)
    return found
