"""JSON files that are given to a report beside the runs. Whoever wrote them, nothing in them is believed unchecked."""

import json
from pathlib import Path
from typing import Any

from gossamer.report.errors import ReportError
from gossamer.storage.files import read_text


def read_json(path: Path) -> Any:
    """The file's content.

    Raises:
        ReportError: it is missing, or no JSON.
    """
    try:
        return json.loads(read_text(path, links=True), parse_constant=_refuse)
    except OSError as error:
        raise ReportError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path} is no JSON file ({error})") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")
