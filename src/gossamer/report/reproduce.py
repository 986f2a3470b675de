"""The commands that make a run again."""

import shlex

from gossamer.job.training import Training
from gossamer.loop.settings import Settings
from gossamer.options import to_options
from gossamer.prune.cut import FILE as DENSITIES
from gossamer.report.run import ReportedRun, table
from gossamer.wording import printable


def commands(run: ReportedRun) -> list[str]:
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


def _compress(run: ReportedRun) -> str:
    words = ["gossamer", "compress", str(table(run.tables, "origin").get("task", run.task))]
    settings = Settings.from_tables(run.tables)
    training = Training.from_tables(run.tables)
    for one in (settings.stop, settings.cut, training, settings.retraining, settings.scope):
        words += to_options(one)
    return _line(*words, "--out", run.name) + "  # and --data DIR, if the task needs it"


def _line(*words: str) -> str:
    return shlex.join(words)
