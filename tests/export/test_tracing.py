"""What surrounds torch's exporter: names, and what is said of a network that it gave up on."""

import logging
import warnings

import onnx
import pytest
import torch
from torch import Tensor, nn

from gossamer.errors import ExportError
from gossamer.export import from_torch
from gossamer.export.calls import call_with
from gossamer.export.from_torch import _module_of, _quiet, _reason, _told_apart, output_names, to_onnx
from gossamer.graph.names import unused
from gossamer.model.call import Call


def test_what_the_exporter_says_is_kept_quiet_and_loggers_are_as_they_were(capfd: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.INFO)
    try:
        with _quiet():
            assert logger.level == logging.CRITICAL
            warnings.warn("of the exporter", UserWarning, stacklevel=1)
            print("of the exporter")
        assert logger.level == logging.INFO
        with pytest.raises(RuntimeError, match="boom"), _quiet():
            raise RuntimeError("boom")
        assert logger.level == logging.INFO
    finally:
        logger.setLevel(before)
    assert capfd.readouterr().out == ""


def test_every_input_has_a_name_of_its_own() -> None:
    taken: set[str] = set()
    names = [unused(name, taken, "_") for name in ("x", "y", "x", "x", "x_2")]
    assert names == ["x", "y", "x_2", "x_3", "x_2_2"]
    assert output_names(1) == ["output"]
    assert output_names(2) == ["output_0", "output_1"]


class Several(nn.Module):
    def forward(self, first: Tensor, *others: Tensor, scale: float = 1.0) -> Tensor:
        return first


def test_inputs_are_called_as_forward_calls_them() -> None:
    one = torch.ones(1)
    assert Call((one, one, one)).names(Several()) == ["first", "others_0", "others_1"]
    assert Call((one,), {"scale": one}).names(Several()) == ["first", "scale"]
    nested = Call(([one, {"a": one}],), {"more": (one, 3, one)})
    assert nested.names(Several()) == ["first_0", "first_1_a", "more_0", "more_2"]
    assert Call((one, one)).names(nn.ReLU()) == ["input", "input_0"]


@pytest.mark.parametrize("given", [3, "text", [1, 2], {"a": 1}, [object(), torch.ones(1)], []])
def test_what_is_no_call(given: object) -> None:
    assert call_with(given) is None


def test_where_a_node_comes_from() -> None:
    node = onnx.NodeProto()
    assert _module_of(node) == ""
    entry = node.metadata_props.add()
    entry.key, entry.value = from_torch.SCOPES, "['', 'blocks.0', 'blocks.0.linear', 'addmm']"
    assert _module_of(node) == "blocks.0.linear"
    entry.value = "['addmm']"
    assert _module_of(node) == ""


class Plus(nn.Module):
    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.number


def test_how_far_a_network_is_from_itself_in_fp32() -> None:
    call = Call((torch.tensor([1.0, 2.0]),))
    told = _told_apart(Plus(0.0), call, Plus(0.5), call)
    assert told == "; in its own precision it differs by 0.5 on the example inputs (outputs up to 2.5)"
    nothing = Call((torch.zeros(0, 3),))
    told = _told_apart(Plus(0.0), nothing, Plus(0.5), nothing)
    assert told == "; in its own precision it differs by 0 on the example inputs (outputs up to 0)"
    two = Call((torch.ones(2, 3),))
    told = _told_apart(nn.Linear(4, 1), two, Plus(0.5), two)
    assert told.startswith(" (torch does not run it in its own precision here: RuntimeError: ")


def test_the_innermost_reason_in_one_line() -> None:
    cause, error = ValueError("\n  the cause \nand more"), RuntimeError("around it")
    error.__cause__ = cause
    assert _reason(error) == "ValueError: the cause"
    assert _reason(RuntimeError()) == "RuntimeError: "
    assert len(_reason(RuntimeError("x" * 1000))) == 300


def test_an_exporter_that_returns_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.onnx, "export", lambda *arguments, **options: None)
    with pytest.raises(ExportError, match="torch returned no ONNX program"):
        to_onnx(nn.Linear(2, 2), [torch.ones(3, 2)])


class Telling(nn.Linear):
    def forward(self, inputs: Tensor) -> str:  # type: ignore[override]
        return "text"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_network_that_fails_in_every_precision_says_why(dtype: torch.dtype) -> None:
    with pytest.raises(ExportError, match="the network returns str; expected tensors"):
        to_onnx(Telling(2, 2).to(dtype), [torch.ones(3, 2, dtype=dtype)])
