"""The section on what remained of a network: the facts of `gossamer explain`, drawn.

They arrive as the plain data of its JSON file, which may be somebody else's; what does not have the expected form is an
error that names the entry.
"""

import base64
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gossamer.errors import GossamerError
from gossamer.explain.inputs import InputReach
from gossamer.explain.picture import draw_input_use, is_image
from gossamer.report import charts
from gossamer.report.drawing import Chart
from gossamer.report.errors import ReportError
from gossamer.report.given import read_json
from gossamer.report.markup import Markup, chart, details, element, join, paragraph, select, table, text
from gossamer.wording import value_text

LISTED = 40
"""Layers or connections in a table."""
LARGEST_PICTURE = 1 << 18
"""Places of an input of which a picture is drawn."""

Facts = dict[str, Any]


@dataclass(frozen=True)
class Section:
    """A part of the page, with its charts by name and the first values of its parameters."""

    body: Markup
    charts: dict[str, Chart]
    state: dict[str, Any]


def read_facts(path: Path) -> Facts:
    """The content of a file of `gossamer explain --json`.

    Raises:
        ReportError: it is no such file.
    """
    facts = read_json(path)
    if not isinstance(facts, dict) or not isinstance(facts.get("dead_units"), dict):
        raise ReportError(f"{path} is no file of `gossamer explain --json`: it has no dead_units")
    return facts


def explained(facts: Facts, source: str) -> Section:
    """The section of one network's facts.

    Args:
        source: where they come from, for errors.

    Raises:
        ReportError: an entry has not the form that `gossamer explain` gives it.
    """
    try:
        return _section(facts)
    except GossamerError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise ReportError(
            f"{source}: its facts have not the form of `gossamer explain --json` ({type(error).__name__}: {error}); "
            f"make them again with this version"
        ) from error


def _section(facts: Facts) -> Section:
    drawn: dict[str, Chart] = {}
    state: dict[str, Any] = {}
    dead = facts["dead_units"]
    drawn["units"] = charts.units(_unit_rows(dead))
    parts = [
        paragraph(f"Run {facts['run']}, round {facts['round']}, task {facts['task']}, on validation data."),
        element("ul", *(element("li", text(line)) for line in _lines(facts))),
    ]
    cards = [
        chart(
            "units",
            "Units that are alive, and dead ones",
            "unread: nothing reads them; constant: nothing leads to them; silent: never active on the data.",
            details("As a table", _unit_table(facts)),
            _how(dead),
        )
    ]
    if (picture := _picture(facts)) is not None:
        cards.append(picture)
    if facts.get("ablation") and facts["ablation"]["points"]:
        ablation = facts["ablation"]
        rows = _ablation_rows(ablation)
        drawn["ablation"] = charts.ablation(rows, float(ablation["baseline"]), str(ablation["metric"]))
        state["weight"] = rows[0]["weight"]
        weights = list(dict.fromkeys(row["weight"] for row in rows))
        cards.append(
            chart(
                "ablation",
                "Which connections matter",
                "The metric when a layer's weakest or strongest survivors are set to zero, with intervals of 95%.",
                select("weight", "weight ", [(weight, weight) for weight in weights]),
                details("As a table", _ablation_table(rows, str(ablation["metric"]))),
                _how(ablation),
            )
        )
    if facts.get("signs") and facts["signs"]["rounds"]:
        drawn["signs"] = charts.signs(_sign_rows(facts["signs"]))
        cards.append(
            chart(
                "signs",
                "Signs that flipped",
                "The share of surviving weights whose sign is another one than at the end of the round before.",
                _how(facts["signs"]),
            )
        )
    if facts.get("decision"):
        cards.append(_decision(facts["decision"]))
    if facts.get("overlaps"):
        cards.append(_overlaps(facts["overlaps"]))
    parts.append(element("div", *cards, class_="grid"))
    missing = [f"No {name}: {why}." for name, why in facts.get("missing", {}).items()]
    parts += [paragraph(line, "quiet") for line in missing]
    return Section(join(parts), drawn, state)


def _lines(facts: Facts) -> list[str]:
    dead = facts["dead_units"]
    lines = [
        f"density {float(dead['density']):.2%}; without the weights of units that are cut off "
        f"{float(dead['effective_density']):.2%}; without those of units that are silent on {int(dead['examples']):,} "
        f"examples {float(dead['effective_density_on_data']):.2%}"
    ]
    if facts.get("inputs"):
        inputs = facts["inputs"]
        lines.append(
            f"{int(inputs['unused']):,} of {len(inputs['connections']):,} positions of the input are read by nothing"
        )
    if facts.get("paths"):
        lines.append(f"{_large(facts['paths']['total'])} of {_large(facts['paths']['dense'])} paths are left")
    return lines


def _large(count: Any) -> str:
    digits = str(int(count))
    return f"{int(count):,}" if len(digits) <= 9 else f"{digits[0]}.{digits[1:3]} x 10^{len(digits) - 1}"


def _unit_rows(dead: Facts) -> list[dict[str, Any]]:
    rows = []
    for layer in dead["layers"]:
        counts = {kind: len(layer[kind]) for kind in ("silent", "constant", "unread")}
        counts = {"alive": int(layer["units"]) - sum(counts.values()), **counts}
        rows += [
            {"layer": str(layer["layer"]), "kind": kind, "units": count, "position": position}
            for position, (kind, count) in enumerate(counts.items())
        ]
    return rows


def _unit_table(facts: Facts) -> Markup:
    fans = {str(layer["layer"]): layer for layer in (facts.get("fans") or {"layers": []})["layers"]}
    rows = []
    for layer in facts["dead_units"]["layers"]:
        fan = fans.get(str(layer["layer"]))
        gone = [len(layer[kind]) for kind in ("unread", "constant", "silent")]
        rows.append(
            [
                layer["layer"],
                int(layer["units"]),
                int(layer["units"]) - sum(gone),
                *gone,
                f"{float(fan['median_fan_in']):g}" if fan else "-",
                f"{float(fan['median_fan_out']):g}" if fan else "-",
            ]
        )
    headings = ["layer", "units", "alive", "unread", "constant", "silent", "median fan-in", "median fan-out"]
    return table(headings, rows, "Units and fans of every layer")


def _picture(facts: Facts) -> Markup | None:
    """What reads each pixel, as an image inside the page; None if the input is no image."""
    inputs = facts.get("inputs")
    if not inputs:
        return None
    connections = tuple(int(count) for count in inputs["connections"])
    shape = tuple(int(extent) for extent in inputs["shape"])
    reach = InputReach(shape, connections, int(inputs["unused"]), (), ())
    if not is_image(reach) or not 0 < len(connections) <= LARGEST_PICTURE or min(connections) < 0:
        return None
    with tempfile.TemporaryDirectory() as folder:
        legend = draw_input_use(reach, Path(folder) / "input.png")
        encoded = base64.b64encode((Path(folder) / "input.png").read_bytes()).decode()
    return element(
        "figure",
        element("h3", text("What the network still looks at")),
        element("img", src=f"data:image/png;base64,{encoded}", alt=f"Connections that read each pixel: {legend}"),
        element("figcaption", text(legend)),
        _how(inputs),
    )


def _ablation_rows(ablation: Facts) -> list[dict[str, Any]]:
    return [
        {
            "weight": str(point["weight"]),
            "which": str(point["which"]),
            "fraction": float(point["fraction"]),
            "removed": int(point["removed"]),
            "metric": float(point["metric"]),
            "low": float(ablation["baseline"]) + float(point["interval"][0]),
            "high": float(ablation["baseline"]) + float(point["interval"][1]),
        }
        for point in ablation["points"]
    ]


def _ablation_table(rows: list[dict[str, Any]], metric: str) -> Markup:
    cells = [
        [
            row["weight"],
            row["which"],
            f"{row['fraction']:.0%}",
            row["removed"],
            value_text(metric, row["metric"]),
            f"{value_text(metric, row['low'])} to {value_text(metric, row['high'])}",
        ]
        for row in rows
    ]
    return table(["weight", "survivors", "share", "removed", metric, "95%"], cells, "Ablation")


def _sign_rows(signs: Facts) -> list[dict[str, Any]]:
    return [
        {
            "round": int(flips["round"]),
            "survivors": int(flips["survivors"]),
            "flipped": int(flips["flipped"]),
            "share": int(flips["flipped"]) / max(1, int(flips["survivors"])),
        }
        for flips in signs["rounds"]
    ]


def _decision(decision: Facts) -> Markup:
    changed = (
        f"Without the {decision['decisive']} connections that speak most for it, it is {decision['changed_to']}."
        if decision["decisive"] is not None
        else "Removing the connections that speak most for it did not change that."
    )
    rows = [
        [connection["source"], connection["target"], connection["weight"]]
        + [f"{float(connection[name]):+.4f}" for name in ("value", "contribution")]
        for connection in decision["connections"][:LISTED]
    ]
    return element(
        "figure",
        element("h3", text("What decided one prediction")),
        paragraph(
            f"Example {decision['example']} (class {decision['target']}) is predicted {decision['predicted']}, "
            f"{float(decision['margin']):.3f} ahead of {decision['rival']}. {changed}"
        ),
        table(["from", "to", "weight", "value", "contribution"], rows, "The connections of the largest contributions"),
        _how(decision),
    )


def _overlaps(overlaps: list[Facts]) -> Markup:
    rows = [
        [
            Path(str(overlap["other"])).name,
            int(overlap["other_round"]),
            int(overlap["total"]["both"]),
            f"{float(overlap['total']['expected']):,.0f}",
            f"{float(overlap['total']['chance'][0]):,.0f} to {float(overlap['total']['chance'][1]):,.0f}",
        ]
        for overlap in overlaps
    ]
    return element(
        "figure",
        element("h3", text("Tickets of different seeds")),
        table(
            ["other run", "round", "kept by both", "by chance", "in 95% of cases"],
            rows,
            "Weights that two tickets share",
        ),
        _how(overlaps[0]),
    )


def _how(facts: Facts) -> Markup:
    return details("How this was computed", paragraph(str(facts["how"]), "quiet"))


def plain(json_text: str) -> Facts:
    """Facts computed here, as the plain data of the JSON file."""
    facts: Facts = json.loads(json_text)
    return facts
