"""What a round has cost so far, the attempts that were interrupted included."""

import math
import time

from gossamer.loop.cost import Cost, Work
from gossamer.rewind.snapshot import StepCounter


class Spent:
    """Optimizer steps and time of a round, which runs from when this is made; and what it computed, where known."""

    def __init__(self, counter: StepCounter) -> None:
        self._counter = counter
        self._started = time.monotonic()
        self._processor_started = time.process_time()
        self.work: Work | None = None
        """What the round computed, for the ledger, where somebody counted it."""

    @property
    def steps(self) -> int:
        """Optimizer steps, as gossamer counts them."""
        return self._counter.steps

    @property
    def seconds(self) -> float:
        """Wall-clock time."""
        return time.monotonic() - self._started

    @property
    def processor_seconds(self) -> float:
        """Time of this process, over all its threads."""
        return time.process_time() - self._processor_started

    def go_on_from(self, steps: int, seconds: float, processor_seconds: float) -> None:
        """Adds what an interrupted attempt at the round had spent: whoever resumes a training inside a round calls it,
        before the first step."""
        self._counter.steps = steps
        self._started = time.monotonic() - seconds
        self._processor_started = time.process_time() - processor_seconds

    def cost(self, round_number: int, method: str, device: str, seconds: float) -> Cost:
        """The round's page of the ledger."""
        return Cost(
            round=round_number,
            method=method if round_number > 0 else "dense",
            device=device,
            steps=self.steps,
            wall_seconds=seconds,
            processor_seconds=round_to_milliseconds(self.processor_seconds),
            work=self.work,
        )


def round_to_milliseconds(seconds: float) -> float:
    return math.floor(seconds * 1000 + 0.5) / 1000
