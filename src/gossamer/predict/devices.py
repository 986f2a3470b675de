"""Devices whose prices come with gossamer: modelled from their processors, for those that nobody has calibrated."""

import tomllib
from importlib import resources

from gossamer.errors import ConfigurationError
from gossamer.predict.calibration import Calibration, calibration_of

DEVICES = ("raspberry-pi-5",)


def device_calibration(name: str) -> Calibration:
    """The prices of a device, one thread: `modelled` says how they were found.

    Raises:
        ConfigurationError: there are none.
    """
    if name not in DEVICES:
        raise ConfigurationError(
            f"--device is {name!r}; expected {' or '.join(DEVICES)}. Prices of any other device come from gossamer "
            f"bench calibrate on it; give its file as --calibration"
        )
    file = resources.files("gossamer.predict") / f"{name}.toml"
    return calibration_of(tomllib.loads(file.read_text(encoding="utf-8")))
