"""The option that says how large a network's inputs are."""

from collections.abc import Sequence
from typing import Annotated

import typer

from gossamer.errors import ConfigurationError

Size = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=NUMBER",
        help="A size that the file leaves open, by its name there, such as height=224 (without a name: INPUT.AXIS, "
        "counted from 0); once for each. The batch is 1.",
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
