"""Commands that take settings objects: each field of one is an option, with the field's docstring as its help."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Annotated, Any, get_args, get_type_hints

import typer

from gossamer.options import Option, from_options, options_of


@dataclass(frozen=True)
class Panel:
    """Under which heading `--help` lists the options of a settings object, and which of them the command has."""

    title: str
    only: tuple[str, ...] = ()
    """Fields; all of them by default."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Field -> what it is where the command says nothing, if that is not the object's own default."""


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """A command for typer, out of a function that takes settings objects: parameters annotated
    `Annotated[Cut, Panel("Pruning")]` become the options of `Cut`."""
    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    objects: dict[str, tuple[type, Panel]] = {}
    for parameter in inspect.signature(command).parameters.values():
        annotation = hints[parameter.name]
        panel = next((one for one in get_args(annotation)[1:] if isinstance(one, Panel)), None)
        if panel is None:
            parameters.append(parameter.replace(annotation=annotation, kind=inspect.Parameter.KEYWORD_ONLY))
        else:
            objects[parameter.name] = get_args(annotation)[0], panel
            options = options_of(get_args(annotation)[0])
            parameters += [_parameter(one, panel) for one in options if not panel.only or one.field in panel.only]
    names = [parameter.name for parameter in parameters]
    assert len({*names}) == len(names), f"two settings of {command.__name__} have one name: {names}"

    @wraps(command)
    def run(**values: Any) -> None:
        settings: dict[str, Any] = {
            name: from_options(kind, {**panel.defaults, **values}) for name, (kind, panel) in objects.items()
        }
        command(**{name: values[name] for name in hints if name in values}, **settings)

    # What typer reads; the function behind takes other arguments.
    del run.__wrapped__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _parameter(option: Option, panel: Panel) -> inspect.Parameter:
    shown = typer.Option(option.name, help=option.help, rich_help_panel=panel.title)
    default = panel.defaults.get(option.field, option.default)
    if isinstance(default, tuple):
        # As it is typed; what is repeated, typer makes of nothing.
        default = option.form.written(default) if default and option.form.read is not None else None
    annotation: Any = Annotated[option.kind, shown]
    return inspect.Parameter(option.field, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
