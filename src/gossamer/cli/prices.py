"""The options that say by whose prices times are expected."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gossamer.errors import ConfigurationError

if TYPE_CHECKING:
    from gossamer.predict.calibration import Calibration

Device = Annotated[
    str | None,
    typer.Option(
        help="A device whose modelled prices come with gossamer: raspberry-pi-5. A calibration made on it is better."
    ),
]


def prices_of(calibration: Path | None, device: str | None) -> "Calibration | None":
    """The prices that a command's options name; None: neither was given.

    Raises:
        ConfigurationError: both were, the device is not known, or the file is no calibration.
    """
    from gossamer.predict.calibration import read_calibration
    from gossamer.predict.devices import device_calibration

    if calibration is not None and device is not None:
        raise ConfigurationError("--calibration and --device both say whose prices to use; leave one of them out")
    if device is not None:
        return device_calibration(device)
    return None if calibration is None else read_calibration(calibration)
