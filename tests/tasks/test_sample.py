"""Examples that are gone through several times, in memory or read."""

import pytest
import torch
from torch import Tensor

from gossamer.tasks import Batch, Examples, Loaded
from gossamer.tasks.sample import BATCH, sample


def rows(batches: list[Batch]) -> list[int]:
    return [int(row) for batch in batches for row in batch.positional[0].flatten()]


def in_memory(count: int) -> Examples:
    return Examples(torch.arange(count)[:, None], torch.arange(count), lambda inputs: inputs + 1)


def test_examples_in_memory_come_whole_and_prepared() -> None:
    found = sample(in_memory(2 * BATCH + 1), most=3)
    assert len(found) == 2 * BATCH + 1
    for _ in range(2):
        assert rows(list(found)) == list(range(1, 2 * BATCH + 2))
    assert rows(list(found.first(3))) == [1, 2, 3]
    one = found.one(BATCH + 4)
    assert (rows([one]), one.targets.tolist()) == ([BATCH + 5], [BATCH + 4])


def test_of_others_the_first_are_read() -> None:
    reads: list[int] = []

    class Set(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
        def __len__(self) -> int:
            return 1000

        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            reads.append(index)
            return torch.tensor([index]), torch.tensor(index)

    found = sample(Loaded(Set(), batch_size=4), most=10)
    assert len(found) == 10
    assert rows(list(found)) == list(range(10))
    read = len(reads)
    assert rows(list(found.first(5))) == list(range(5))
    assert rows([found.one(9)]) == [9]
    with pytest.raises(IndexError):
        found.one(10)
    assert len(reads) == read
