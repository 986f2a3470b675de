"""Lists in options: values with commas between them."""

from gossamer.errors import ConfigurationError


def whole_numbers(text: str | None, option: str) -> tuple[int, ...]:
    """Such as (0, 1, 5) from "0,1,5"; nothing from None.

    Raises:
        ConfigurationError: it is no such list.
    """
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise ConfigurationError(f"{option} is {text!r}; expected whole numbers such as 0,1,5") from error


def numbers(text: str | None, option: str) -> tuple[float, ...]:
    """Such as (0.5, 0.1) from "0.5,0.1"; nothing from None.

    Raises:
        ConfigurationError: it is no such list.
    """
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise ConfigurationError(f"{option} is {text!r}; expected numbers such as 0.5,0.1") from error
