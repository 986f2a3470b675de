"""The ranks of the process group, or the one process that there is: values, tensors and errors go round them."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
import torch.distributed as distributed
from torch import Tensor

from gossamer import errors
from gossamer.errors import ConfigurationError, GossamerError, RankError, first_line

ON_THE_CPU = ("gloo", "mpi", "ucc")
"""Backends that take tensors in ordinary memory."""


@dataclass(frozen=True)
class Ranks:
    """The processes that train one model, of which this is one. Every method is to be called by all of them, in the
    same order; where there is one process only, nothing is sent."""

    rank: int = 0
    """This process, from 0."""
    size: int = 1
    """How many there are."""

    @property
    def several(self) -> bool:
        return self.size > 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes what belongs to all of them."""
        return self.rank == 0

    @property
    def others(self) -> range:
        return range(1, self.size)

    def barrier(self) -> None:
        """Waits until every rank is here."""
        if self.several:
            with _explained():
                distributed.all_reduce(torch.zeros((), dtype=torch.uint8, device=_device()))

    def from_first(self, value: Any) -> Any:
        """Rank 0's value, in all ranks.

        Args:
            value: of rank 0: what JSON can say, infinities and NaN included; tuples arrive as lists. Others' are
                ignored.
        """
        if not self.several:
            return value
        sent = _bytes(value) if self.first else None
        with _explained():
            length = _numbers([0 if sent is None else sent.numel()])
            distributed.broadcast(length, 0)
            content = torch.empty(int(length), dtype=torch.uint8) if sent is None else sent
            content = content.to(_device())
            distributed.broadcast(content, 0)
        return value if self.first else _value(content)

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in the order of the ranks, in all of them.

        Args:
            value: what JSON can say.
        """
        if not self.several:
            return [value]
        own = _bytes(value)
        with _explained():
            lengths = [_numbers([0]) for _ in range(self.size)]
            distributed.all_gather(lengths, _numbers([own.numel()]))
            longest = max(map(int, lengths))
            # As long as the longest: that is the only form that every backend has.
            padded = torch.zeros(longest, dtype=torch.uint8, device=_device())
            padded[: own.numel()] = own
            found = [torch.empty_like(padded) for _ in range(self.size)]
            distributed.all_gather(found, padded)
        return [_value(content[: int(length)]) for content, length in zip(found, lengths, strict=True)]

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, in all of them, with the same bits; a new tensor on the device of the old."""
        if not self.several:
            return tensor
        total = tensor.detach().to(_device(), copy=True)
        with _explained():
            distributed.all_reduce(total)
        return total.to(tensor.device)

    def mean(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mean over all ranks of tensors of floating-point numbers, by name."""
        return {name: self.sum(tensor) / self.size if self.several else tensor for name, tensor in tensors.items()}

    @torch.no_grad()
    def put_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Writes rank 0's numbers into the tensors of the others, which have the same types and shapes."""
        for tensor in tensors if self.several else ():
            # A copy where it lies elsewhere, or not in one piece.
            sent = tensor.detach().to(_device()).contiguous()
            with _explained():
                distributed.broadcast(sent, 0)
            if not self.first:
                tensor.copy_(sent)

    def require_same(self, what: str, values: Mapping[str, Any]) -> None:
        """Verifies that all ranks have the same values, such as the digests of their tensors, by name.

        Args:
            what: what they are of, for the message.

        Raises:
            RankError: the message names the ranks that differ from rank 0, and the first name in which they do.
        """
        if not self.several:
            return
        # What is compared is short, however many names there are.
        summaries = self.gather(_digest(values))
        different = [rank for rank, summary in enumerate(summaries) if summary != summaries[0]]
        if not different:
            return
        expected: dict[str, Any] = self.from_first(dict(values))
        own = json.loads(json.dumps(dict(values)))
        differing = [name for name in [*expected, *own] if expected.get(name) != own.get(name)]
        said = self.gather(_shown(differing[0], own, expected) if differing else None)[different[0]]
        raise RankError(
            f"{what} differ between the processes of this training: rank {', '.join(map(str, different))} "
            f"{'has' if len(different) == 1 else 'have'} others than rank 0 ({said}); expected the same in all"
        )

    @contextmanager
    def together(self) -> Iterator[None]:
        """What fails inside in one rank fails in all of them, at the end: none goes on or waits for one that does not
        come. Inside a rank calls no collective that another leaves out.

        Raises:
            GossamerError: another rank's error, of its kind, with the number of the rank; the own one goes before.
        """
        if not self.several:
            yield
            return
        own: Exception | None = None
        try:
            yield
        except Exception as error:
            own = error
        said = None if own is None else [type(own).__name__, str(own) if isinstance(own, GossamerError) else repr(own)]
        failed = [(rank, one) for rank, one in enumerate(self.gather_outcomes(said, own)) if one is not None]
        if own is not None:
            raise own
        if failed:
            rank, (kind, message) = failed[0]
            raise _error(kind)(f"rank {rank}: {message}")

    def gather_outcomes(self, said: Any, own: Exception | None) -> list[Any]:
        """What every rank says of how it fared, by rank.

        Args:
            own: this rank's error, if it has one; raised if the others do not answer.
        """
        try:
            return self.gather(said)
        except RankError:
            if own is not None:
                # It may be the reason why the others do not answer.
                raise own from None
            raise


ALONE = Ranks()
"""One process by itself."""


def current() -> Ranks:
    """The ranks of the default process group; one process where there is none.

    Raises:
        ConfigurationError: this is one of several processes of torchrun that have not found each other yet.
    """
    if distributed.is_available() and distributed.is_initialized():
        return Ranks(distributed.get_rank(), distributed.get_world_size())
    rank, size = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank and size and size.isdecimal() and int(size) > 1:
        raise ConfigurationError(
            f"this is process {rank} of {size} (RANK and WORLD_SIZE of the environment, as torchrun sets them), but "
            f"torch.distributed does not know the others; call torch.distributed.init_process_group() first, or make "
            f"the Accelerator or Trainer that does. What is to train alone is started without torchrun"
        )
    return ALONE


def _device() -> torch.device:
    """Where the tensors of collectives have to be."""
    if any(backend in distributed.get_backend_config() for backend in ON_THE_CPU):
        return torch.device("cpu")
    accelerator = torch.accelerator.current_accelerator()
    assert accelerator is not None
    return torch.device(accelerator.type, torch.accelerator.current_device_index())


def _bytes(value: Any) -> Tensor:
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


def _value(content: Tensor) -> Any:
    return json.loads(bytes(content.cpu().numpy()).decode())


def _numbers(values: Sequence[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64, device=_device())


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(dict(values), sort_keys=True).encode()).hexdigest()


def _shown(name: str, own: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    found, wanted = own.get(name), expected.get(name)
    if isinstance(found, (int, float)) and isinstance(wanted, (int, float)):
        return f"{name}: {found}, and {wanted} there"
    return name if name in own and name in expected else f"{name}, which only one of them has"


def _error(kind: str) -> type[GossamerError]:
    """The class of gossamer's errors that another rank raised; of what is no GossamerError, `RankError`."""
    found = getattr(errors, kind, None)
    return found if isinstance(found, type) and issubclass(found, GossamerError) else RankError


@contextmanager
def _explained() -> Iterator[None]:
    """What a collective says when another process does not answer, in one line."""
    try:
        yield
    except RuntimeError as error:
        _refuse(error)


def _refuse(error: RuntimeError) -> NoReturn:
    raise RankError(
        f"another process of this training is gone or does not answer ({first_line(error)}). End those that are left, "
        f"if torchrun does not, and run the same command again: it goes on after the last finished round"
    ) from error
