"""Examples that are gone through several times, in memory or read."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from gossamer.tasks import Batch, Examples, Loaded
from gossamer.tasks.sample import BATCH, all_batches, chosen_batches, sample


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


class Numbered(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """The numbers of its examples; or, as an augmentation would, others."""

    def __init__(self, count: int, moved: int = 0) -> None:
        self.count, self.moved = count, moved

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.tensor([index + self.moved]), torch.tensor(index)


def test_all_examples_once() -> None:
    assert rows(list(all_batches(in_memory(2 * BATCH + 1)))) == list(range(1, 2 * BATCH + 2))
    assert rows(list(all_batches(Loaded(Numbered(11), batch_size=4)))) == list(range(11))


def test_examples_are_drawn_without_replacement_and_the_same_each_time() -> None:
    loader = torch.utils.data.DataLoader(Numbered(1000), batch_size=50, shuffle=True)
    splits = [in_memory(1000), Loaded(Numbered(1000), batch_size=500), Loaded(loader)]
    for split in splits:
        found = chosen_batches(split, 100, seed=3)
        assert max(batch.examples for batch in found) <= 16
        drawn = rows(found)
        assert len(set(drawn)) == 100
        assert drawn == sorted(drawn)
        assert max(drawn) > 800  # not the first, which may all be of one class
        assert rows(chosen_batches(split, 100, seed=3)) == drawn
        assert rows(chosen_batches(split, 100, seed=4)) != drawn
        assert len(rows(chosen_batches(split, 5000, seed=3))) == 1000


def test_what_has_no_numbers_is_read_from_its_beginning() -> None:
    stream = [(torch.arange(start, start + 30)[:, None], torch.zeros(30)) for start in range(0, 300, 30)]
    assert rows(chosen_batches(Loaded(iter_of(stream)), 100, seed=0)) == list(range(100))


def iter_of(batches: list[tuple[Tensor, Tensor]]) -> object:
    class Stream:
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            return iter(batches)

    return Stream()


def test_examples_are_drawn_without_augmentation_where_there_are_such() -> None:
    split = Loaded(Numbered(50, moved=1000), batch_size=8, unaugmented=Numbered(50))
    assert rows(chosen_batches(split, 50, seed=0)) == list(range(50))
    assert rows(list(split.once(lambda *parts: 0))) == list(range(1000, 1050))
