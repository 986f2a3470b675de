"""Small networks whose layers are measured to calibrate: of every class, over the sizes that networks have."""

from gossamer.bench.network import DescribedNetwork, read

SIZES = (
    (224, 16),
    (112, 24),
    (56, 48),
    (40, 40),
    (28, 96),
    (20, 80),
    (14, 192),
    (10, 160),
    (7, 320),
    (16, 32),
    (8, 64),
)
"""Height and width, with channels in proportion to what networks have there. None is one of the networks that
predictions are measured on."""
DEEP = ((56, 224), (28, 448), (14, 448))
"""Height and width, with the many channels of deep 3x3 layers, whose weights come from memory."""
IMAGES = ((288, 48, 3, 1), (256, 40, 3, 2), (192, 48, 7, 2), (144, 40, 5, 2), (80, 64, 7, 2), (48, 32, 3, 1))
"""Height and width, channels, and the first layer's window and stride; a max pooling follows. In the larger half, most
of what is computed is in some cache no more when it is read."""
FEATURES = ((96, 32), (40, 64), (20, 128))
"""Height and width, with the channels of an input that is no image."""
WINDOWS = ((72, 32), (36, 64), (16, 128))
"""Height and width, with the channels of dilated, large and grouped windows."""
FUNCTIONS = ((112, 16, "hardswish"), (40, 48, "silu"), (14, 96, "hardswish"))
"""Height and width, channels, and the function behind the layers: of bytes ONNX Runtime computes it on floats."""
TOKENS = ((96, 512), (160, 384))
VECTORS = {"vectors": (512, 3072, 1536, 10240, 2048, 640, 96, 24), "vectors-small": (784, 320, 320, 96, 96, 32, 8)}
"""Features between the layers of chains of fully connected layers."""


def specimens() -> list[DescribedNetwork]:
    """The networks, from `gossamer.bench.network`'s lines."""
    return [
        *(read(f"convolutions-{size}", _convolutions(size, channels)) for size, channels in SIZES),
        *(read(f"deep-{size}", _deep(size, channels)) for size, channels in DEEP),
        *(read(f"images-{size}", _images(size, *settings)) for size, *settings in IMAGES),
        *(read(f"features-{size}", _features(size, channels)) for size, channels in FEATURES),
        *(read(f"windows-{size}", _windows(size, channels)) for size, channels in WINDOWS),
        *(read(f"functions-{size}", _functions(size, channels, name)) for size, channels, name in FUNCTIONS),
        *(read(f"products-{tokens}", _products(tokens, features)) for tokens, features in TOKENS),
        *(read(name, _vectors(features)) for name, features in VECTORS.items()),
    ]


def small_specimens() -> list[DescribedNetwork]:
    """Networks with all classes of layers, so small that a simulator runs them: where nothing depends on caches."""
    return [
        read("convolutions-16", _convolutions(16, 32)),
        read("convolutions-12", _convolutions(12, 64)),
        read("images-48", _images(48, 32, 3, 1)),
        read("images-64", _images(64, 32, 7, 2)),
        read("features-20", _features(20, 64)),
        read("windows-12", _windows(12, 32)),
        read("functions-14", _functions(14, 32, "hardswish")),
        read("products-24", _products(24, 192)),
        read("products-80", _products(80, 64)),
        read("vectors", _vectors((512, 768, 384, 1024, 256, 96, 24))),
    ]


def _convolutions(size: int, channels: int) -> str:
    """A chain in which every class of convolution occurs, behind others as in a network."""
    wide = 4 * channels if size < 112 else 2 * channels
    return f"""
image     input     3x{size}x{size}
stem      conv      image     outputs={channels} kernel=3 relu dense
widen     conv      stem      outputs={wide} relu
narrow    conv      widen     outputs={channels} relu
middle    conv      narrow    outputs={channels} kernel=3 relu
sum       conv      middle    outputs={wide} residual=widen relu
again     conv      sum       outputs={2 * channels} relu
square    conv      again     outputs={channels + channels // 2} kernel=3 relu
deep      conv      square    outputs={wide} relu
depthwise conv      deep      outputs={wide} groups={wide} kernel=3 relu dense
pointwise conv      depthwise outputs={2 * channels} relu
stepwise  conv      pointwise outputs={2 * channels} groups={2 * channels} kernel=3 stride=2 relu dense
behind    conv      stepwise  outputs={channels} relu
shortcut  conv      pointwise outputs={wide} stride=2
strided   conv      pointwise outputs={channels} kernel=3 stride=2 relu
last      conv      strided   outputs={wide} residual=shortcut relu
joined    conv      last      outputs={channels} residual=behind relu
average   average   joined
"""


def _deep(size: int, channels: int) -> str:
    return f"""
image   input   3x{2 * size}x{2 * size}
stem    conv    image   outputs=64 kernel=3 relu dense
pooled  maxpool stem    kernel=2 stride=2 padding=0
first   conv    pooled  outputs={channels} kernel=3 relu
second  conv    first   outputs={channels} kernel=3 relu
wide    conv    second  outputs={2 * channels} relu
narrow  conv    wide    outputs={channels} relu
average average narrow
"""


def _images(size: int, channels: int, kernel: int, stride: int) -> str:
    """A first layer with a pooling that it can take along, unless its outputs are read once more; other poolings, of
    which the last is one of bytes too, as a layer reads it."""
    return f"""
image    input   3x{size}x{size}
stem     conv    image    outputs={channels} kernel={kernel} stride={stride} relu dense
pooled   maxpool stem     kernel=3 stride=2 padding=1
middle   conv    pooled   outputs={2 * channels} kernel=3 relu
halved   maxpool middle   kernel=2 stride=2 padding=0
narrow   conv    halved   outputs={channels} relu
smoothed maxpool narrow   kernel=3 stride=1 padding=1
last     conv    smoothed outputs={2 * channels} relu
average  average last
scores   linear  average  outputs=64
"""


def _features(size: int, channels: int) -> str:
    return f"""
features input   {channels}x{size}x{size}
first    conv    features outputs={2 * channels} relu
pooled   maxpool first    kernel=2 stride=2 padding=0
second   conv    pooled   outputs={channels} kernel=3 relu
smoothed maxpool second   kernel=3 stride=2 padding=1
last     conv    smoothed outputs={4 * channels} relu
average  average last
"""


def _windows(size: int, channels: int) -> str:
    """Windows other than 3 x 3 next to one another, and those of few channels in many groups."""
    return f"""
image    input   3x{size}x{size}
stem     conv    image    outputs={channels} kernel=3 relu dense
near     conv    stem     outputs={channels} kernel=3 dilation=2 relu
far      conv    near     outputs={channels} kernel=3 dilation={size // 3} relu
beyond   conv    far      outputs={channels} kernel=3 dilation={size * 2 // 3} relu
large    conv    beyond   outputs={channels} kernel=5 relu
larger   conv    large    outputs={channels // 2} kernel=7 relu
halved   conv    larger   outputs={2 * channels} kernel=7 stride=2 relu
fours    conv    halved   outputs={2 * channels} kernel=3 groups={channels // 2} relu
apart    conv    fours    outputs={2 * channels} kernel=3 dilation=3 groups={channels // 2} relu
mixed    conv    apart    outputs={2 * channels} groups={channels // 4} relu
each     conv    mixed    outputs={2 * channels} groups={2 * channels} kernel=5 relu dense
distant  conv    each     outputs={2 * channels} groups={2 * channels} kernel=3 dilation={size // 4} relu dense
last     conv    distant  outputs={2 * channels} relu
slim     conv    last     outputs=12 kernel=3 relu
slimmer  conv    slim     outputs=8 kernel=5 relu
average  average slimmer
"""


def _functions(size: int, channels: int, function: str) -> str:
    """Mobile blocks with functions that are no clips, squeeze and excitation, and a classifier."""
    wide = 4 * channels
    return f"""
image     input     3x{size}x{size}
stem      conv      image     outputs={channels} kernel=3 {function} dense
widen     conv      stem      outputs={wide} {function}
depthwise conv      widen     outputs={wide} groups={wide} kernel=5 {function} dense
narrow    conv      depthwise outputs={channels} residual=stem
again     conv      narrow    outputs={wide} {function}
stepwise  conv      again     outputs={wide} groups={wide} kernel=3 stride=2 relu dense
behind    conv      stepwise  outputs={2 * channels} {function}
squeezed  maxpool   behind    kernel={size // 2} stride=1 padding=0
one       conv      squeezed  outputs={4 * channels} relu
two       conv      one       outputs={2 * channels} {function}
excited   multiply  behind,two
average   average   excited
classes   linear    average   outputs=100 {function}
scores    linear    classes   outputs=10
"""


def _products(tokens: int, features: int) -> str:
    return f"""
tokens    input     {tokens}x{features}
first     linear    tokens    outputs={features}
second    linear    first     outputs={features} relu
up        linear    second    outputs={4 * features} gelu
down      linear    up        outputs={features} residual=second
half      linear    down      outputs={features // 2}
back      linear    half      outputs={3 * features}
last      linear    back      outputs={features}
query     linear    last      outputs={features}
key       linear    last      outputs={features}
value     linear    last      outputs={features}
seen      attention query,key,value heads={features // 64}
mixed     linear    seen      outputs={features} residual=last
steady    normalise mixed
"""


def _vectors(widths: tuple[int, ...]) -> str:
    lines = [f"vector input {widths[0]}x1x1", "flat flatten vector"]
    source = "flat"
    for number, features in enumerate(widths[1:]):
        lines.append(f"layer{number} linear {source} outputs={features} relu")
        source = f"layer{number}"
    return "\n".join(lines)
