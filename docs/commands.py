"""Writes the page of the command line from the command itself, when the site is built."""

from typing import Any

import typer

PLACE = "<!-- commands -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """mkdocs calls this for every page."""
    return markdown.replace(PLACE, _all_commands()) if PLACE in markdown else markdown


def _all_commands() -> str:
    from gossamer.cli.main import app

    return "\n".join(_section(typer.main.get_command(app), "gossamer", 2))


def _section(command: Any, path: str, level: int) -> list[str]:
    lines = [f"{'#' * level} `{path}`", "", _plain(command.help or ""), ""]
    options = [option for option in command.params if not getattr(option, "hidden", False)]
    if options:
        lines += ["| | | default |", "|---|---|---|", *map(_row, options), ""]
    for name, inner in getattr(command, "commands", {}).items():
        lines += _section(inner, f"{path} {name}", level + 1)
    return lines


def _row(option: Any) -> str:
    names = (
        option.opts + option.secondary_opts
        if option.param_type_name == "option"
        else [option.metavar or option.name.upper()]
    )
    default = "" if option.default in (None, [], ()) or callable(option.default) else f"`{option.default}`"
    return f"| {' '.join(f'`{name}`' for name in names)} | {_plain(getattr(option, 'help', '') or '')} | {default} |"


def _plain(text: str) -> str:
    """One line, as Markdown takes it in a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
