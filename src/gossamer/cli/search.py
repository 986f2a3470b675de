"""`gossamer search`: AMC, which looks for the density of every layer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from gossamer.cli.console import console
from gossamer.cli.repeated import DataFolder, Device, OwnTask
from gossamer.cli.settings import Panel, with_settings
from gossamer.prune.scope import Scope
from gossamer.search.errors import SearchError
from gossamer.search.settings import PriceList, Scoring, SearchSettings
from gossamer.wording import value_text

if TYPE_CHECKING:
    from gossamer.predict.calibration import Calibration
    from gossamer.search import Budget, Policy
    from gossamer.search.compressible import Compressible
    from gossamer.search.layers import LayerFacts
    from gossamer.search.searching import Episode
    from gossamer.search.subject import Searched

BUDGETS = ("weights", "flops", "milliseconds")
LINE_EPISODES = 10
"""Without a terminal every so many episodes are reported."""


@with_settings
def search(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN|TASK",
            help="The folder of a run, whose dense network is taken; or path/file.py:function, your own task whose "
            "model is trained already.",
        ),
    ],
    budget: Annotated[
        str,
        typer.Option(
            help="What the network may cost: weights=0.1 or flops=0.5 (shares of dense), milliseconds=5 (as gossamer "
            "predict expects them); or just weights, flops or milliseconds, with --reward accuracy-guaranteed."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Write the policy to this .toml file; the search's state beside it.")
    ],
    how: Annotated[SearchSettings, Panel("The search")],
    scoring: Annotated[Scoring, Panel("How a network is scored")],
    price_list: Annotated[PriceList, Panel("What an inference takes")],
    scope: Annotated[Scope, Panel("Which weights (default: what the run prunes)", ("include", "exclude"))],
    data: DataFolder = None,
    task: OwnTask = None,
    device: Device = "cpu",
) -> None:
    """Look for the density of every layer by reinforcement learning (AMC), without retraining in between.

    The policy is for `gossamer compress --allocation FILE`. Interrupt it whenever you like: the same command continues.
    """
    # torch takes a second to load, which `gossamer --help` need not.

    from gossamer.search.searching import search as find
    from gossamer.search.subject import open_subject, short_retraining
    from gossamer.tasks.processor import find_device, flush_denormals

    flush_denormals()
    where = find_device(device)
    asked, limit = _asked(budget)
    prices = _prices(asked, how.actions, price_list)
    subject = open_subject(run, data_folder=data, task=task).to(where)
    scope = subject.scope if scope == Scope() else scope
    examples, sign = subject.validation.first(scoring.examples), _sign(subject, how.reward)
    _warn_of_no_agent(how)
    retrained = how.reward == "retrained"
    with _progress(subject.task.metric.name, sign) as callback:
        policy = find(
            subject.model,
            example=subject.example,
            score=lambda model: sign * subject.value(model, examples),
            budget=_budget(asked, limit, subject, prices),
            folder=out.with_suffix(".search"),
            how=how,
            retrain=short_retraining(subject, scoring.retrain_steps, how.seed, scope) if retrained else None,
            scope=scope,
            settings={"task": subject.task.name, **scope.to_tables()["scope"], "device": where.type}
            | {"examples": len(examples), "retrain_steps": scoring.retrain_steps if retrained else None}
            | {"calibration": None if prices is None else prices.identity},
            callback=callback,
        )
    policy.write(out)
    _print(subject, policy, scope, out)


def _warn_of_no_agent(how: SearchSettings) -> None:
    if how.episodes <= how.warm_up:
        console(goes_on=True).print(
            f"all {how.episodes} episodes are at random: the agent acts after the {how.warm_up} of --warm-up"
        )


def _asked(text: str) -> tuple[str, float | None]:
    """`weights=0.1` and the like: the name of the budget, and its number if there is one."""
    name, equals, number = text.partition("=")
    if name in BUDGETS and not equals:
        return name, None
    try:
        if name in BUDGETS:
            return name, float(number)
    except ValueError:
        pass
    raise SearchError(
        f"the budget is {text!r}; expected weights=SHARE or flops=SHARE (of dense, such as weights=0.1), or "
        f"milliseconds=NUMBER (such as milliseconds=5)"
    )


def _prices(asked: str, actions: str, given: PriceList) -> "Calibration | None":
    """The prices by which milliseconds are predicted, as `gossamer predict` takes them; None for another budget."""
    if asked != "milliseconds":
        if given != PriceList():
            option = "--threads" if given.calibration is None else "--calibration"
            raise SearchError(
                f"{option} says by what prices milliseconds are predicted, but the budget is one of {asked}; expected "
                f"--budget milliseconds=NUMBER with it. Leave it out."
            )
        return None
    if actions == "channels":
        raise SearchError(
            "milliseconds are predicted for zeros in tensors of their full size, but channels that go make tensors "
            "smaller; expected --actions weights with this budget, or --budget flops=SHARE for channels"
        )
    from gossamer.cli.export import with_export_packages

    with_export_packages()
    from gossamer.predict.calibration import find_calibration

    found = find_calibration(given.calibration, given.threads)
    if found.warning:
        console(goes_on=True).print(found.warning)
    return found


def _budget(
    asked: str, limit: float | None, subject: "Searched", prices: "Calibration | None"
) -> "Callable[[Sequence[LayerFacts]], Budget]":
    from gossamer.search import flops, weights
    from gossamer.search.budget import milliseconds

    if prices is None:
        return lambda layers: {"weights": weights, "flops": flops}[asked](layers, limit)

    def of_time(layers: "Sequence[LayerFacts]") -> "Budget":
        from gossamer.search.expected_time import expected_milliseconds

        inputs = subject.validation.batch(slice(0, 2))[0]
        names = [layer.name for layer in layers]
        return milliseconds(layers, expected_milliseconds(subject.model, names, (inputs,), prices), limit)

    return of_time


def _sign(subject: "Searched", reward: str) -> float:
    metric = subject.task.metric
    if reward == "accuracy-guaranteed" and metric.name != "accuracy":
        raise SearchError(
            f"the reward accuracy-guaranteed needs an accuracy between 0 and 1, but {subject.task.name} is scored by "
            f"{metric.name}; expected the reward accuracy, with a limit"
        )
    return 1.0 if metric.better == "higher" else -1.0


@contextmanager
def _progress(metric: str, sign: float) -> "Iterator[_Lines]":
    terminal = console(goes_on=True)
    if not terminal.is_terminal:
        yield _Lines(terminal, metric, sign)
        return
    bar = Progress(
        TextColumn("episodes"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[facts]}", markup=False),
        console=terminal,
    )
    with bar:
        yield _Bar(bar, metric, sign)


class _Lines:
    """A line at the beginning, and now and then one."""

    def __init__(self, terminal: Console, metric: str, sign: float) -> None:
        self._terminal = terminal
        self._metric = metric
        self._sign = sign

    def started(self, network: "Compressible", budget: "Budget", done: int, episodes: int) -> None:
        limit = "" if budget.limit is None else f" of at most {budget.limit:,.6g}"
        self._terminal.print(
            f"{len(network.actions)} actions an episode, {episodes} episodes; budget: {budget.name}{limit}"
            + (f"; continuing with episode {done}" if done else ""),
        )

    def ended(self, episodes: "Sequence[Episode]") -> None:
        """Says so if no network was better than another."""
        if len(episodes) < 2 or len({(one.value, one.reward) for one in episodes}) > 1:
            return
        shown = value_text(self._metric, self._sign * episodes[0].value)
        self._terminal.print(
            f"every network that was tried has the same {self._metric}, {shown}: there was nothing to learn from. "
            f"Judge them by more --examples, or after some (or more) training by --reward retrained.",
        )

    def episode_finished(self, episode: "Episode", best: "Episode") -> None:
        if (episode.number + 1) % LINE_EPISODES == 0:
            self._terminal.print(f"episode {episode.number + 1}  {self.facts(episode, best)}")

    def facts(self, episode: "Episode", best: "Episode") -> str:
        now, then = (value_text(self._metric, self._sign * which.value) for which in (episode, best))
        return f"{self._metric} {now}  best {then} (episode {best.number + 1})"


class _Bar(_Lines):
    """A bar in a terminal."""

    def __init__(self, bar: Progress, metric: str, sign: float) -> None:
        super().__init__(bar.console, metric, sign)
        self._progress = bar
        self._task = bar.add_task("", total=1, facts="")

    def started(self, network: "Compressible", budget: "Budget", done: int, episodes: int) -> None:
        super().started(network, budget, done, episodes)
        self._progress.update(self._task, total=episodes, completed=done)

    def episode_finished(self, episode: "Episode", best: "Episode") -> None:
        self._progress.update(self._task, completed=episode.number + 1, facts=self.facts(episode, best))


def _print(subject: "Searched", policy: "Policy", scope: Scope, out: Path) -> None:
    """The policy beside global magnitude pruning to the same number of weights."""
    from gossamer.prune import masks as masks_of
    from gossamer.prune.choose import choose
    from gossamer.prune.cut import Cut
    from gossamer.prune.prunable import prunable_weights
    from gossamer.search.compressible import pruned
    from gossamer.search.searching import COMPRESSIBLE

    model = subject.model
    weights = prunable_weights(model, scope)
    kept = sum(policy.kept.values())
    network = COMPRESSIBLE[policy.actions](model, weights, (subject.example,))
    rivals: dict[str, Mapping[str, Any]] = {
        "dense": masks_of.full(weights),
        "policy": network.masks(policy.chosen),
        "global magnitude": choose(Cut(), model, weights, kept, masks_of.full(weights), round_number=1),
    }
    metric = subject.task.metric.name
    terminal = console(goes_on=True)
    layers = Table(box=box.SIMPLE_HEAD, show_edge=False)
    layers.add_column("weights of", overflow="fold")
    for heading in ("all", "policy", "density", "global magnitude", "density"):
        layers.add_column(heading, justify="right", no_wrap=True)
    for name, number in policy.kept.items():
        size, other = weights[name].numel(), int(rivals["global magnitude"][name].sum())
        layers.add_row(name, f"{size:,}", f"{number:,}", f"{number / size:.2%}", f"{other:,}", f"{other / size:.2%}")
    terminal.print(layers)
    total = sum(weight.numel() for weight in weights.values())
    terminal.print(f"{kept:,} of {total:,} weights ({kept / total:.2%}); {policy.budget} {policy.cost:,.6g}")
    for rival, masks in rivals.items():
        with pruned(model, weights, masks):
            values = [
                f"{split} {metric} {value_text(metric, subject.value(model, examples))}"
                for split, examples in (("val", subject.data.validation), ("test", subject.data.test))
                if examples is not None
            ]
        terminal.print(f"{rival + ', not retrained:':<34}{'  '.join(values)}")
    structure = "" if policy.structure == "unstructured" else f" --structure {policy.structure}"
    terminal.print(f"written to {out}; next: gossamer compress TASK --allocation {out}{structure}")
