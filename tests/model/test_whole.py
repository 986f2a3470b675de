"""Models that are not here whole: sharded over processes, on the meta device, or stored in another way."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Started
from torch import Tensor, nn
from torch.utils._python_dispatch import return_and_correct_aliasing

import gossamer
from gossamer import Scope
from gossamer.errors import ConfigurationError


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_sharded_model_is_refused_with_the_reason(ranks: int, tmp_path: Path) -> None:
    program = Path(__file__).with_name("sharding.py").read_text()
    for process in [Started(tmp_path, tmp_path, rank, ranks, script=program) for rank in range(ranks)]:
        ended = process.completed()
        assert ended.returncode == 0, ended.stderr
    for rank in range(ranks):
        said = json.loads((tmp_path / f"said-{rank}.json").read_text())
        refused = said.pop("FSDP2")
        for name in ("taylor", "lamp", "channels", "1x4"):
            assert (
                "0.weight is sharded (a DTensor: fully_shard, tensor parallelism), and the cut is by" in refused[name]
            )
            assert "the criterion magnitude or random and the structure unstructured or N:M" in refused[name]
        for name in ("replicates", "weight-rewind", "quantised"):
            assert name in refused[name]
            assert "needs networks that are whole in every process" in refused[name]
        assert ("2:4" in refused) == (ranks > 1)
        if ranks > 1:
            assert "divides some of them between processes; expected whole groups" in refused["2:4"]
        assert len(said) == 3
        for kind, calls in said.items():
            for call, message in calls.items():
                assert "is wrapped by FullyShardedDataParallel (FSDP1)" in message, (kind, call)
                assert "torch.distributed.fsdp.fully_shard" in message, (kind, call)


def on_meta() -> nn.Sequential:
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def test_the_meta_device_has_no_numbers(tmp_path: Path) -> None:
    whole = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    list(gossamer.rounds(whole, folder=tmp_path / "whole", stop=gossamer.Stop(rounds=1)))
    partly = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4, device="meta"))
    calls: list[Any] = [
        lambda: gossamer.rounds(on_meta(), folder=tmp_path / "new", stop=gossamer.Stop(rounds=1)),
        lambda: gossamer.rounds(partly, folder=tmp_path / "new", scope=Scope(["0"]), stop=gossamer.Stop(rounds=1)),
        lambda: gossamer.load_round(tmp_path / "whole", -1, on_meta()),
        lambda: gossamer.check(on_meta(), masks=gossamer.load_masks(tmp_path / "whole", -1)),
        lambda: gossamer.keep_largest(dict(on_meta().named_parameters()), 3),
    ]
    for call in calls:
        with pytest.raises(ConfigurationError, match=r"is on the meta device and has no numbers.*Load the weights"):
            call()
    assert not (tmp_path / "new").exists()
    # Which weights there are is known all the same.
    assert list(gossamer.prunable_weights(on_meta())) == ["0.weight", "2.weight"]


class FourBits(Tensor):
    """A tensor that stands for numbers in half a byte each, as those of torchao and torchtune do."""

    packed: Tensor

    @staticmethod
    def __new__(cls, packed: Tensor) -> "FourBits":
        shape = (packed.shape[0], 2 * packed.shape[1])
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=torch.bfloat16)  # type: ignore[attr-defined, no-any-return]

    def __init__(self, packed: Tensor) -> None:
        self.packed = packed

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["packed"], None

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten.detach.default:
            return return_and_correct_aliasing(function, args, kwargs or {}, FourBits(args[0].packed))
        raise NotImplementedError(function)


def test_numbers_that_are_stored_in_another_way_are_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 16, bias=False), nn.Linear(16, 4))
    model[0].weight = nn.Parameter(FourBits(torch.zeros(16, 4, dtype=torch.uint8)), requires_grad=False)
    with pytest.raises(ConfigurationError, match=r"0\.weight is a FourBits, which stands for numbers"):
        gossamer.prunable_weights(model)
    assert list(gossamer.prunable_weights(model, Scope(exclude=["0"]))) == ["1.weight"]
    with pytest.raises(ConfigurationError, match=r"0\.weight is a FourBits"):
        gossamer.rounds(model, folder=tmp_path, scope=Scope(exclude=["0"]), stop=gossamer.Stop(rounds=1))


class FullyShardedDataParallel(nn.Sequential):
    """Known by its name: torch's and fairscale's are of no common class."""


def partitioned() -> nn.Linear:
    """As DeepSpeed leaves a layer whose numbers it has taken away."""
    layer = nn.Linear(3, 3)
    layer.weight.ds_shape = (3, 3)  # type: ignore[attr-defined]
    return layer


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FullyShardedDataParallel(nn.Linear(3, 3)), "^the model is wrapped by FullyShardedDataParallel"),
        (
            lambda: nn.Sequential(FullyShardedDataParallel(nn.Linear(3, 3))),
            "^0 is wrapped by FullyShardedDataParallel",
        ),
        (partitioned, "^weight is partitioned by DeepSpeed's ZeRO stage 3"),
    ],
)
def test_pieces_are_known_by_their_marks(make: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=message):
        gossamer.prunable_weights(make())
    with pytest.raises(ConfigurationError, match=message):
        gossamer.rounds(make(), folder=tmp_path, stop=gossamer.Stop(rounds=1))
    model = make()
    masks = {name: torch.ones(3, 3, dtype=torch.bool) for name, parameter in model.named_parameters() if "w" in name}
    with pytest.raises(ConfigurationError, match=message):
        gossamer.check(model, masks=masks)
