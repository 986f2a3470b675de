"""The scheme of numbers, beside numpy and ONNX Runtime."""

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from gossamer.quantise.scheme import input_scale, rounded_input, rounded_weight, weight_scales


def test_a_weight_is_a_multiple_of_its_channel_s_scale() -> None:
    weight = torch.tensor([[1.27, -0.014, 0.0, 0.016], [0.0, 0.0, 0.0, 0.0], [-254.0, 3.1, 0.0, 1.0]])
    torch.testing.assert_close(weight_scales(weight, 0), torch.tensor([0.01, 1.0, 2.0]))
    expected = torch.tensor([[1.27, -0.01, 0.0, 0.02], [0.0, 0.0, 0.0, 0.0], [-254.0, 4.0, 0.0, 0.0]])
    torch.testing.assert_close(rounded_weight(weight, 0), expected)
    torch.testing.assert_close(rounded_weight(weight.T.contiguous(), 1), expected.T)


def test_weights_are_those_of_numpy() -> None:
    weight = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    weight[torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)) < 0.5] = 0
    array = weight.numpy()
    scales = np.abs(array).reshape(5, -1).max(1) / 127
    levels = np.rint(array / scales[:, None, None, None])
    rounded = rounded_weight(weight, 0)
    np.testing.assert_allclose(rounded, levels * scales[:, None, None, None], rtol=1e-6)
    assert np.abs(levels).max() == 127
    assert not rounded[weight == 0].any()


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero_point"),
    [(-1.0, 4.1, 0.02, 50), (0.5, 2.55, 0.01, 0), (-5.1, -1.0, 0.02, 255), (0.0, 0.0, 1.0, 0), (-1e-42, 0.0, 1.0, 0)],
)
def test_a_range_includes_zero_exactly(low: float, high: float, scale: float, zero_point: int) -> None:
    found = input_scale(torch.tensor(low), torch.tensor(high))
    assert found[0].item() == pytest.approx(scale)
    assert found[1].item() == zero_point
    values = torch.tensor([0.0, -1000.0, 1000.0])
    rounded = rounded_input(values, torch.tensor(low), torch.tensor(high))
    assert rounded[0] == 0
    assert rounded[1] == pytest.approx(-scale * zero_point)
    assert rounded[2] == pytest.approx(scale * (255 - zero_point))


def test_gradients_pass_through_but_for_inputs_beyond_the_range() -> None:
    weight = torch.tensor([[1.0, -0.3, 0.0]], requires_grad=True)
    values = torch.tensor([-3.0, 0.4, 9.0], requires_grad=True)
    rounded_weight(weight, 0).sum().backward()
    rounded_input(values, torch.tensor(-1.0), torch.tensor(1.0)).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[1, 1, 1]]
    assert values.grad is not None
    assert values.grad.tolist() == [0, 1, 0]


def test_a_network_that_diverged_looks_like_one() -> None:
    nan = torch.tensor(torch.nan)
    assert rounded_weight(torch.tensor([[1.0, torch.nan], [1.0, 2.0]]), 0)[0].isnan().all()
    assert rounded_input(torch.ones(2), nan, nan).isnan().all()


@pytest.mark.parametrize("layer", [nn.Conv2d(6, 8, 3, groups=2), nn.Conv2d(8, 8, 3, groups=8), nn.Linear(9, 8)])
def test_batch_norm_may_be_folded_before_or_after_rounding(layer: nn.Conv2d | nn.Linear) -> None:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(layer.weight.shape, generator=generator)
    factors = torch.randn(8, generator=generator).view(8, *[1] * (weight.dim() - 1))  # of both signs
    torch.testing.assert_close(rounded_weight(weight, 0) * factors, rounded_weight(weight * factors, 0))
    first = rounded_weight(weight, 0) / weight_scales(weight, 0).view(factors.shape)
    folded = rounded_weight(weight * factors, 0) / weight_scales(weight * factors, 0).view(factors.shape)
    assert torch.equal((first * factors.sign()).round(), folded.round())


def test_a_layer_is_that_of_onnx_runtime() -> None:
    generator = torch.Generator().manual_seed(4)
    values = torch.randn(2, 3, 8, 8, generator=generator)
    weight = torch.randn(4, 3, 3, 3, generator=generator)
    low, high = torch.tensor(-2.0), torch.tensor(1.5)
    scale, zero_point = input_scale(low, high)
    scales = weight_scales(weight, 0)
    levels = (weight / scales.view(4, 1, 1, 1)).round().to(torch.int8)
    given = {
        "scale": scale.numpy(),
        "zero": zero_point.numpy().astype(np.uint8),
        "weight": levels.numpy(),
        "scales": scales.numpy(),
        "zeros": np.zeros(4, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "scale", "zero"], ["levels"]),
        helper.make_node("DequantizeLinear", ["levels", "scale", "zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["weight", "scales", "zeros"], ["kernel"], axis=0),
        helper.make_node("Conv", ["rounded", "kernel"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [2, 3, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [2, 4, 6, 6])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in given.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"input": values.numpy()})[0]
    found = nn.functional.conv2d(rounded_input(values, low, high), rounded_weight(weight, 0))
    # Both multiply the same whole numbers; the scale of a tie may differ in its last bit.
    np.testing.assert_allclose(found, expected, atol=1e-4)
