"""The options that say what a network's inputs are, and how large."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from gossamer.errors import ConfigurationError

Size = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=NUMBER",
        help="A size that the file leaves open, by its name there, such as height=224 (without a name: INPUT.AXIS, "
        "counted from 0); once for each.",
    ),
]
Input = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="NAME=FILE.npy",
        help="Of an .onnx file, what an input is compared on, as numpy.save writes it; once for each. The others are "
        "random.",
    ),
]


def sizes_of(texts: Sequence[str] | None) -> dict[str, int]:
    """Such as {"height": 224} from ["height=224"].

    Raises:
        ConfigurationError: one is not of this form, or a name is given twice.
    """
    sizes: dict[str, int] = {}
    for text in texts or ():
        name, equals, number = text.rpartition("=")
        if not (equals and name and number.isascii() and number.isdigit()):
            raise ConfigurationError(f"--size is {text!r}; expected a name and a whole number such as height=224")
        if name in sizes:
            raise ConfigurationError(f"--size says {name} twice: {sizes[name]} and {number}; give it once")
        sizes[name] = int(number)
    return sizes


def inputs_of(texts: Sequence[str] | None) -> dict[str, Path]:
    """Such as {"image": Path("image.npy")} from ["image=image.npy"].

    Raises:
        ConfigurationError: one is not of this form, or a name is given twice.
    """
    files: dict[str, Path] = {}
    for text in texts or ():
        name, _, file = text.partition("=")
        if not (name and file):
            raise ConfigurationError(f"--input is {text!r}; expected a name and a file such as image=image.npy")
        if name in files:
            raise ConfigurationError(f"--input says {name} twice: {files[name]} and {file}; give it once")
        files[name] = Path(file)
    return files
