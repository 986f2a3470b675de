"""Changes that alter nothing that was promised, as a person judged: `judged.toml` names each with the reason."""

import tomllib
from pathlib import Path

JUDGED = Path(__file__).with_name("judged.toml")


def reasons(path: Path = JUDGED) -> dict[tuple[str, str, str, str], str]:
    """`Change.identity` -> why the change alters nothing."""
    entries = tomllib.loads(path.read_text(encoding="utf-8")).get("change", []) if path.exists() else []
    return {(entry["file"], entry["line"], entry["before"], entry["after"]): entry["reason"] for entry in entries}
