"""Nested states in a safetensors file, and back."""

import hashlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.optim import lr_scheduler as schedules

from gossamer.errors import CheckpointError
from gossamer.storage import state as states


def assert_same(found: Any, expected: Any) -> None:
    """Equal in value, type and bits."""
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        assert found.numpy(force=True).tobytes() == expected.contiguous().numpy(force=True).tobytes()
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, float):
        assert math.isnan(expected) if math.isnan(found) else found.hex() == expected.hex()
    else:
        assert found == expected


def through_a_file(state: Any, folder: Path) -> Any:
    states.save(folder / "state.safetensors", state)
    return states.load(folder / "state.safetensors")


def test_a_state_written_by_hand(tmp_path: Path) -> None:
    state = {
        "step": torch.tensor(3.0),
        0: {"buffer": torch.tensor([[1.0, -0.0]]), "none": None},
        "betas": (0.9, 0.999),
        "flags": [True, False, 1, 0, 1.0],
        "text": 'a "quoted" ü\n',
        "extremes": [math.inf, -math.inf, math.nan, 5e-324, 0.1, 2**80],
        (1, "pair"): [[], (), {}],
        "array": np.arange(5, dtype=np.uint32),
    }
    assert_same(through_a_file(state, tmp_path), state)


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.tuples(
        st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8]),
        st.lists(st.integers(0, 3), max_size=3),
    ).map(lambda kind_shape: (torch.randn(kind_shape[1]) * 9).abs().to(kind_shape[0])),
    st.sampled_from([np.uint32, np.float64, np.int8, np.bool_]).map(lambda kind: np.arange(4).astype(kind)),
)
keys = st.one_of(st.text(max_size=3), st.integers(), st.booleans(), st.none(), st.tuples(st.integers(), st.integers()))
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
    ),
    max_leaves=20,
)


@given(tree=trees)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
def test_any_tree_comes_back_as_it_was(tree: Any, tmp_path: Path) -> None:
    if isinstance(tree, torch.Tensor) and tree.dtype == torch.bfloat16:
        tree = tree.float()
    assert_same_tree(through_a_file(tree, tmp_path), tree)


def assert_same_tree(found: Any, expected: Any) -> None:
    assert_same(_without_bfloat16(found), _without_bfloat16(expected))


def _without_bfloat16(tree: Any) -> Any:
    """numpy knows no bfloat16; its bits as integers."""
    if isinstance(tree, torch.Tensor) and tree.dtype == torch.bfloat16:
        return tree.contiguous().view(torch.int16)
    if isinstance(tree, dict):
        return {key: _without_bfloat16(item) for key, item in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(_without_bfloat16(item) for item in tree)
    return tree


def test_views_of_one_storage_are_stored_apart(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    assert_same(
        through_a_file([base, base.t(), base[1:], base[:, ::2]], tmp_path), [base, base.t(), base[1:], base[:, ::2]]
    )


def test_tensors_lie_in_memory_as_they_did(tmp_path: Path) -> None:
    """Matrix products of other layouts, or at addresses that are no multiples of a vector's, have other bits."""
    columns = torch.linalg.qr(torch.randn(7, 5)).Q.t()
    state = [torch.ones(3), columns, torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last), torch.randn(5, 3)]
    for found, expected in zip(through_a_file(state, tmp_path), state, strict=True):
        assert_same(found, expected)
        assert found.stride() == expected.stride()
        assert found.data_ptr() % 64 == 0


def test_types_of_numbers(tmp_path: Path) -> None:
    state = {"computed in": torch.bfloat16, "kept in": [torch.float32, torch.uint8]}
    assert_same(through_a_file(state, tmp_path), state)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        lambda p: torch.optim.Adam(p, lr=torch.tensor(0.1), amsgrad=True),
        lambda p: torch.optim.AdamW(p, foreach=True),
        lambda p: torch.optim.NAdam(p),
        lambda p: torch.optim.RMSprop(p, centered=True, momentum=0.5),
        lambda p: torch.optim.Adagrad(p),
        lambda p: torch.optim.Adadelta(p),
        lambda p: torch.optim.ASGD(p),
        lambda p: torch.optim.Rprop(p),
        lambda p: torch.optim.Adafactor(p),
        lambda p: torch.optim.LBFGS(p, max_iter=3),
    ],
)
def test_optimizers_go_on_as_if_they_had_not_been_stored(
    make: Callable[[Any], torch.optim.Optimizer], tmp_path: Path
) -> None:
    def parts() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
        return model, make(model.parameters())

    def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = model(torch.ones(2, 4)).square().sum()
            loss.backward()
            return loss

        for _ in range(3):
            optimizer.step(closure)

    model, optimizer = parts()
    train(model, optimizer)
    stored = through_a_file({"model": dict(model.state_dict()), "optimizer": optimizer.state_dict()}, tmp_path)
    train(model, optimizer)
    again, optimizer_again = parts()
    again.load_state_dict(stored["model"])
    optimizer_again.load_state_dict(stored["optimizer"])
    train(again, optimizer_again)
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "make",
    [
        lambda o: schedules.StepLR(o, 3),
        lambda o: schedules.MultiStepLR(o, [2, 2, 5]),
        lambda o: schedules.CosineAnnealingLR(o, 9),
        lambda o: schedules.CosineAnnealingWarmRestarts(o, 3),
        lambda o: schedules.OneCycleLR(o, 0.3, total_steps=20),
        lambda o: schedules.CyclicLR(o, 0.01, 0.1, step_size_up=3),
        lambda o: schedules.ExponentialLR(o, 0.9),
        lambda o: schedules.LambdaLR(o, lambda step: 0.9**step),
        lambda o: schedules.PolynomialLR(o, 9),
        lambda o: schedules.SequentialLR(o, [schedules.LinearLR(o), schedules.CosineAnnealingLR(o, 9)], [4]),
        lambda o: schedules.ChainedScheduler([schedules.LinearLR(o), schedules.ExponentialLR(o, 0.9)], optimizer=o),
    ],
)
@pytest.mark.filterwarnings("ignore:The epoch parameter in:UserWarning")  # Of older torch, told of itself.
def test_schedules_go_on_as_if_they_had_not_been_stored(make: Callable[[Any], Any], tmp_path: Path) -> None:
    def parts() -> tuple[torch.optim.Optimizer, Any]:
        optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9)
        return optimizer, make(optimizer)

    def rates(optimizer: torch.optim.Optimizer, schedule: Any) -> list[float]:
        found = []
        for _ in range(6):
            optimizer.step()
            schedule.step()
            found.append(optimizer.param_groups[0]["lr"])
        return found

    optimizer, schedule = parts()
    rates(optimizer, schedule)
    stored = through_a_file({"o": optimizer.state_dict(), "s": schedule.state_dict()}, tmp_path)
    optimizer_again, schedule_again = parts()
    optimizer_again.load_state_dict(stored["o"])
    schedule_again.load_state_dict(stored["s"])
    assert rates(optimizer_again, schedule_again) == rates(optimizer, schedule)


@pytest.mark.parametrize(
    "thing",
    [
        object(),
        {1, 2},
        b"bytes",
        1j,
        print,
        torch.device("cpu"),
        np.array([object()]),
        np.array([1.0]).astype(">f8"),
        torch.eye(3).to_sparse(),
        torch.ones(2, dtype=torch.complex128),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_what_only_a_pickle_could_hold_is_refused_by_its_place(thing: object, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"state\['groups'\]\[1\]|cannot be stored without pickle"):
        states.save(tmp_path / "state.safetensors", {"groups": [0, thing]})


def test_a_file_that_is_missing_or_no_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    with pytest.raises(CheckpointError, match=r"state\.safetensors is missing"):
        states.load(path)
    for content in (b"", b"garbage", b"\xff" * 100, b"\x10\0\0\0\0\0\0\0" + b"{" * 16, b"\x80\x04N."):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"state\.safetensors is damaged"):
            states.load(path)


@pytest.mark.parametrize(
    "tree",
    [
        "not JSON",
        "null",
        "[]",
        "7",
        '"text"',
        "{}",
        '{"unknown": 1}',
        '{"value": 1, "list": []}',
        '{"tensor": "7"}',
        '{"tensor": ["0"]}',
        '{"tensor": null}',
        '{"list": 5}',
        '{"list": [5]}',
        '{"tuple": {"value": 1}}',
        '{"dict": [[{"value": 1}]]}',
        '{"dict": [[{"list": []}, {"value": 1}]]}',
        '{"dict": {"a": 1}}',
        '{"array": {"value": 3}}',
        '{"dtype": "torch.nn"}',
        '{"permuted": ["0", [1]]}',
        '{"permuted": ["0", "0"]}',
        '{"permuted": "0"}',
        '{"permuted": ["2", [0]]}',
        '{"array": {"tensor": "1"}}',
        '{"list": [' * 3000,
        '{"list": [' * 3000 + "]}" * 3000,
    ],
    ids=lambda tree: tree[:40],
)
def test_a_hostile_tree_is_a_damaged_file(tree: str, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    tensors = {"0": torch.ones(2), "1": torch.ones(2, dtype=torch.bfloat16)}
    save_file(tensors, path, metadata=sealed(tree, tensors))
    with pytest.raises(CheckpointError, match=r"state\.safetensors is damaged"):
        states.load(path)


def sealed(tree: str, tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    """The metadata as gossamer writes it: whoever writes a hostile file can compute the digest too."""
    digest = hashlib.blake2b(tree.encode(), digest_size=32)
    for name, tensor in sorted(tensors.items()):
        content = tensor.contiguous().view(torch.uint8).numpy().tobytes()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + content)
    return {"gossamer.state": json.dumps({"tree": tree, "blake2b": digest.hexdigest()})}


def test_a_file_written_by_hand(tmp_path: Path) -> None:
    tensors = {"0": torch.ones(2), "1": torch.ones(2, dtype=torch.bfloat16)}
    tree = '{"list": [{"tensor": "1"}, {"tensor": "0"}, {"value": 5}]}'
    save_file(tensors, tmp_path / "state.safetensors", metadata=sealed(tree, tensors))
    one, two, three = states.load(tmp_path / "state.safetensors")
    assert (one.dtype, two.dtype, three) == (torch.bfloat16, torch.float32, 5)


@pytest.mark.parametrize("header", ["{}", "[]", "3", "null", "x", '{"tree": 1, "blake2b": ""}', '{"tree": "{}"}'])
def test_a_hostile_header_is_a_damaged_file(header: str, tmp_path: Path) -> None:
    save_file({"0": torch.ones(2)}, tmp_path / "state.safetensors", metadata={"gossamer.state": header})
    with pytest.raises(CheckpointError, match=r"state\.safetensors is damaged"):
        states.load(tmp_path / "state.safetensors")


def test_a_flipped_bit_in_any_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    states.save(path, {"lr": 0.1, "slots": [torch.ones(3)], "rng": np.arange(3, dtype=np.uint32)})
    content = path.read_bytes()
    for position, byte in enumerate(content):
        path.write_bytes(content[:position] + bytes([byte ^ (1 << position % 8)]) + content[position + 1 :])
        try:
            state = states.load(path)
        except CheckpointError:
            continue
        # Only what carries nothing may change: the blanks that fill up the header.
        assert byte == ord(" "), position
        assert state["lr"] == 0.1


def test_a_safetensors_file_of_another_program_is_refused(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"other\.safetensors is damaged or no gossamer state"):
        states.load(tmp_path / "other.safetensors")


def test_the_tree_in_the_file_is_json(tmp_path: Path) -> None:
    """The format, by hand: whoever reads it needs no Python."""
    path = tmp_path / "state.safetensors"
    states.save(path, {"lr": 0.1, "slots": [torch.ones(1)]})
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert json.loads(json.loads(header["__metadata__"]["gossamer.state"])["tree"]) == {
        "dict": [
            [{"value": "lr"}, {"value": 0.1}],
            [{"value": "slots"}, {"list": [{"tensor": "0"}]}],
        ]
    }


def test_numbers_of_numpy_come_back_as_python_s(tmp_path: Path) -> None:
    state = {"whole": np.int64(3), "half": np.float32(0.5), "flag": np.bool_(True)}
    assert_same(through_a_file(state, tmp_path), {"whole": 3, "half": 0.5, "flag": True})


def test_entries_are_those_of_a_dictionary(tmp_path: Path) -> None:
    states.save(tmp_path / "list", [1])
    with pytest.raises(CheckpointError, match="holds a list; expected the file as written"):
        states.load_entries(tmp_path / "list")
    states.save(tmp_path / "entries", {"a": 1})
    assert states.load_entries(tmp_path / "entries") == {"a": 1}


def test_a_file_whose_name_is_no_text(tmp_path: Path) -> None:
    states.save(tmp_path / "plain", {"a": torch.ones(2)})
    (tmp_path / "plain").rename(tmp_path / os.fsdecode(b"\xff"))
    assert_same(states.load(tmp_path / os.fsdecode(b"\xff")), {"a": torch.ones(2)})
