"""How a network is stored in its file."""

from dataclasses import dataclass

from gossamer.errors import ConfigurationError


@dataclass(frozen=True)
class FileForm:
    """What is stored, and how.

    Raises:
        ConfigurationError: a value is out of range, or two contradict each other.
    """

    dense: bool = False
    """Standard ops only, zeros and all, for any ONNX runtime."""
    half: bool = False
    """Store weights as fp16: half the file. They are computed with as fp32."""
    half_difference: float = 0.01
    """The share of an output's largest number that fp16 weights, each off by up to 0.05%, may change; else refused."""

    def __post_init__(self) -> None:
        if not 0 <= self.half_difference <= 1:
            raise ConfigurationError(f"--half-difference is {self.half_difference}; expected a share from 0 to 1")
        if self.dense and self.half:
            raise ConfigurationError("--dense writes fp32 weights that every runtime reads; leave --half out")


SPARSE_FP32 = FileForm()
