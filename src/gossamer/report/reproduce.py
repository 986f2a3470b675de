"""The commands that make a run again."""

import shlex
from typing import Any

from gossamer.report.run import Run, table
from gossamer.wording import printable

DENSITIES = "densities.toml"


def commands(run: Run) -> list[str]:
    """What was installed, what compressed, and what to do with the recommended round; lines for a shell."""
    versions = table(run.tables, "versions")
    packages = [f"{name}=={versions[name]}" for name in ("torch", "numpy") if name in versions]
    lines = [f"# gossamer {versions.get('gossamer', '(unknown version)')}, Python {versions.get('python', '?')}"]
    if packages:
        lines.append(_line("pip", "install", *packages))
    if run.task is None:
        lines.append("# made by a training loop of its own around gossamer.rounds; its settings are in the table")
        return [printable(line) for line in lines]
    if "densities" in table(run.tables, "method"):
        lines.append(f"# {DENSITIES} holds the densities that the configuration lists under method.densities")
    lines.append(_compress(run))
    # A task of one's own is named again wherever its model is needed.
    source = table(run.tables, "origin").get("task")
    task = [] if source is None else ["--task", str(source)]
    for action in (["shrink"], ["explain"]):
        lines.append(_line("gossamer", *action, run.name, "--round", str(run.recommended), *task))
    return [printable(line) for line in lines]


def _compress(run: Run) -> str:
    rounds, settings, scope = (table(run.tables, name) for name in ("rounds", "settings", "scope"))
    method, recipe = table(run.tables, "method"), table(settings, "recipe")
    words = ["gossamer", "compress", str(table(run.tables, "origin").get("task", run.task))]
    words += _options((rounds, "target_sparsity", None), (rounds, "max_drop", None))
    if rounds.get("one_shot") is not True:
        # With one cut, these follow from the target.
        words += _options((rounds, "rounds", None), (rounds, "per_round", 0.2))
    words += _options(
        (settings, "epochs", recipe.get("epochs")),
        (rounds, "seed", 0),
        (settings, "device", "cpu"),
    )
    words += _retraining(rounds, method, settings)
    words += _options((method, "criterion", "magnitude"), (method, "structure", "unstructured"))
    if method.get("allocation", "global") != "global":
        given = method["allocation"] == "densities"
        words += ["--allocation", DENSITIES if given else str(method["allocation"])]
    for name, default in (("include", ["*"]), ("exclude", [])):
        patterns = scope.get(name, default)
        if isinstance(patterns, list) and patterns != default:
            words += [word for pattern in patterns for word in (f"--{name}", str(pattern))]
    if scope.get("embeddings") is True:
        words.append("--embeddings")
    if settings.get("optimizer_state") == "fresh":
        words.append("--fresh-optimizer")
    return _line(*words, "--out", run.name) + "  # and --data DIR, if the task needs it"


def _retraining(rounds: dict[str, Any], method: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """How the network was retrained after a cut; what was rewound to is written down as "3 epochs" or "100 steps"."""
    words = []
    if method.get("retraining", "lr-rewind") != "lr-rewind":
        words += ["--method", str(method["retraining"])]
    if rounds.get("one_shot") is True:
        words.append("--one-shot")
    for name, option in (("retrain_for", "rewind-epochs"), ("rewind_to", "rewind-to")):
        if name in method:
            count, _, unit = str(method[name]).partition(" ")
            words += [f"--{option}-step" if unit.startswith("step") else f"--{option}", count]
    if "rewound" in method:
        words += ["--rewound", ",".join(map(str, method["rewound"])) or "none"]
    return words + _options((method, "replicates", 1), (settings, "fine_tune_rate", None))


def _options(*known: tuple[dict[str, Any], str, Any]) -> list[str]:
    """The options of those settings that are not what they are by default."""
    return [
        word
        for settings, name, default in known
        if name in settings and settings[name] != default
        for word in (f"--{name.replace('_', '-')}", f"{settings[name]}")
    ]


def _line(*words: str) -> str:
    return shlex.join(words)
