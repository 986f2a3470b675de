"""Options that name a file to write."""

from pathlib import Path

from gossamer.errors import ConfigurationError

OWN = ("*.toml", "*.jsonl", "*.safetensors", "progress.json", "round-*/*")
"""What belongs to a run, a comparison or a search, configuration and rounds included."""


def output(path: Path | None) -> Path | None:
    """The path as it is, as a callback of an option.

    Raises:
        ConfigurationError: it would replace a file of a run.
    """
    if path is not None:
        from gossamer.loop.configuration import FILE

        inside = [folder for folder in path.absolute().parents[:2] if (folder / FILE).is_file()]
        if inside and path.exists() and any(path.absolute().relative_to(inside[0]).match(own) for own in OWN):
            raise ConfigurationError(f"{path} is a file of the run in {inside[0]} and would be lost; name another file")
    return path
