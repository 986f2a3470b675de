"""Where what takes long to make is kept, to be made once for all runs."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """gossamer's folder in the user's cache: $XDG_CACHE_HOME/gossamer, or ~/.cache/gossamer. It may not exist yet."""
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given and Path(given).is_absolute() else Path.home() / ".cache") / "gossamer"
