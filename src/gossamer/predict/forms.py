"""Which form of a network is expected to be the fastest: fp32 or int8, of ONNX Runtime's ops or with sparse ones."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

import onnx

from gossamer.export.prices import shipped
from gossamer.predict.calibration import Calibration
from gossamer.predict.network import predict

CLEARLY = 0.15
"""The share of a time by which fp32 has to be faster to be named: networks are expected to be missed by up to 0.14."""


@dataclass(frozen=True)
class ExpectedForms:
    """Seconds of one inference."""

    sparse_int8: float
    """As `gossamer export --int8` writes it; where no layer is faster sparse, as ONNX Runtime computes it."""
    dense_int8: float
    sparse_fp32: float
    dense_fp32: float
    processor: str
    """Whose prices they go by."""
    threads: int
    modelled: bool = False
    """Whether the prices come from a model of the processor instead of measurements."""

    @property
    def fp32(self) -> float:
        """As `gossamer export` writes it, or dense."""
        return min(self.sparse_fp32, self.dense_fp32)

    def fp32_is_faster(self, *, dense: bool) -> bool:
        """Whether the network in fp32 is clearly faster than in int8.

        Args:
            dense: than in ONNX Runtime's own int8; else than with sparse ops.
        """
        return self.fp32 < (1 - CLEARLY) * (self.dense_int8 if dense else self.sparse_int8)


def expected_forms(
    floats: onnx.ModelProto,
    quantised: onnx.ModelProto,
    calibration: Calibration | None = None,
    sizes: Mapping[str, int] | None = None,
) -> ExpectedForms:
    """Expects the times of a network in all forms.

    Args:
        floats: the network in fp32, plain ONNX.
        quantised: the same in int8.
        calibration: None: the one that comes with gossamer.
        sizes: of inputs that are open.

    Raises:
        ConfigurationError: a size is missing.
    """
    prices = calibration or shipped_calibration()
    in_fp32, in_int8 = (predict(model, prices, sizes) for model in (floats, quantised))
    return ExpectedForms(
        in_int8.expected,
        in_int8.dense,
        in_fp32.expected,
        in_fp32.dense,
        prices.machine.get("processor", "an unknown processor"),
        prices.threads,
        prices.modelled is not None,
    )


def shipped_calibration() -> Calibration:
    """The calibration that comes with gossamer."""
    content = tomllib.loads((resources.files("gossamer.export") / "prices.toml").read_text(encoding="utf-8"))
    return Calibration(content["threads"], shipped(), content["machine"])
