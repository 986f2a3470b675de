"""A network as a list of operations on units, in the order of their computation.

A *value* is what an operation computes: a tensor whose first dimension counts examples. Its *positions* are its
elements for one example, and positions that can only be there or not be there together form a *unit*: a feature of a
vector, a channel of an image. Everything that gossamer knows about structure (which units are coupled, which are
constant, which reach the output, along how many paths) is read off this list, one operation at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

Value = str
"""A value's name: that of its node in the traced graph."""
Shape = tuple[int, ...]
"""The shape of one example, without the dimension that counts examples."""
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


@dataclass(frozen=True)
class Input:
    """A tensor that the caller gives; its shape stays as it is."""

    output: Value


@dataclass(frozen=True)
class FullLayer:
    """A linear layer over the last dimension, or a convolution over the first, whose every output reads every input."""

    name: str
    """The name of the module, such as `layer1.0.conv1`."""
    module: nn.Linear | Convolution
    input: Value
    output: Value


@dataclass(frozen=True)
class Depthwise:
    """A convolution of every channel with a kernel of its own."""

    name: str
    module: Convolution
    input: Value
    output: Value


@dataclass(frozen=True)
class Normalisation:
    """BatchNorm with the statistics of training: a scale and a shift for every channel."""

    name: str
    module: BatchNorm
    input: Value
    output: Value


@dataclass(frozen=True)
class Elementwise:
    """An activation, or arithmetic with a number."""

    function: Callable[[Tensor], Tensor]
    input: Value
    output: Value


@dataclass(frozen=True)
class Pooling:
    """Pooling over the dimensions after the channels, or interpolation between their positions."""

    function: Callable[[Tensor], Tensor]
    """(batch, channels, ...) -> (batch, channels, ...), every channel by itself."""
    keeps_constants: bool
    """Whether a channel that is the same everywhere comes out the same. Zero does in any case."""
    input: Value
    output: Value


@dataclass(frozen=True)
class Padding:
    """More positions before and after some dimensions."""

    amounts: tuple[tuple[int, int], ...]
    """Positions before and after, for every dimension of one example; none is negative."""
    dimensions: tuple[int, ...]
    """The dimensions that are padded: maybe by nothing for the example inputs, and by something for others."""
    fill: float | None
    """The number that they hold; None if they repeat others, so that what is the same everywhere stays so."""
    input: Value
    output: Value


@dataclass(frozen=True)
class Mean:
    """The mean over some dimensions."""

    dimensions: tuple[int, ...]
    """Counted without that of the examples."""
    keep: bool
    """Whether they stay, with length 1."""
    input: Value
    output: Value


@dataclass(frozen=True)
class Rearrangement:
    """The same positions elsewhere: flatten, permute, every second pixel."""

    function: Callable[[Tensor], Tensor]
    """(1, ...) -> (1, ...), for any type of element."""
    whole: tuple[int, ...]
    """Dimensions, counted without that of the examples, along which no unit may be missing."""
    says_size: bool
    """Whether the model's code holds the number of features (`view(-1, 400)`), to be changed when units go."""
    input: Value
    output: Value


@dataclass(frozen=True)
class Combination:
    """A sum, difference or product, position by position, of two values of one shape: units that meet are coupled."""

    function: Callable[[Tensor, Tensor], Tensor]
    is_product: bool
    inputs: tuple[Value, Value]
    output: Value


@dataclass(frozen=True)
class Concatenation:
    """Values side by side along a dimension, counted without that of the examples."""

    dimension: int
    inputs: tuple[Value, ...]
    output: Value


@dataclass(frozen=True)
class SizeOf:
    """The model's code asks how many positions there are along a dimension: units along it must stay."""

    dimension: int
    input: Value


@dataclass(frozen=True)
class Opaque:
    """Anything else. What goes in is needed as it is, and nothing is known of what comes out."""

    description: str
    """Words for people, such as `norm (LayerNorm)`."""
    inputs: tuple[Value, ...]
    output: Value | None


@dataclass(frozen=True)
class Output:
    """What the network returns."""

    inputs: tuple[Value, ...]


Operation = (
    Input
    | FullLayer
    | Depthwise
    | Normalisation
    | Elementwise
    | Pooling
    | Padding
    | Mean
    | Rearrangement
    | Combination
    | Concatenation
    | SizeOf
    | Opaque
    | Output
)


def read_by(operation: Operation) -> tuple[Value, ...]:
    """The values that an operation is given."""
    match operation:
        case Input():
            return ()
        case Combination() | Concatenation() | Opaque() | Output():
            return operation.inputs
    return (operation.input,)


@dataclass(frozen=True)
class OperationGraph:
    """All operations of a model, in the order of their computation, and the shapes of their values."""

    operations: tuple[Operation, ...]
    shapes: dict[Value, Shape]

    @property
    def layers(self) -> tuple[FullLayer, ...]:
        return tuple(operation for operation in self.operations if isinstance(operation, FullLayer))

    @property
    def not_understood(self) -> tuple[str, ...]:
        """Descriptions of the operations whose inputs and outputs have to stay as they are; those that only work on
        numbers of the code's own (the positions of a grid) hold nothing back."""
        given: set[Value | None] = set()
        """Values that depend on the inputs."""
        found = []
        for operation in self.operations:
            if isinstance(operation, SizeOf | Output):
                continue
            if isinstance(operation, Input) or given.intersection(read_by(operation)):
                given.add(operation.output)
                if isinstance(operation, Opaque):
                    found.append(operation.description)
        return tuple(found)
