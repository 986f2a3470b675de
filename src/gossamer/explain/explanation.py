"""All facts about a surviving network, as plain data."""

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gossamer.errors import ConfigurationError
from gossamer.explain.ablation import FRACTIONS, Ablation, ablate
from gossamer.explain.dead import DeadUnits, find_dead_units
from gossamer.explain.decision import Decision, find_decision
from gossamer.explain.fans import Fans, find_fans
from gossamer.explain.inputs import InputReach, find_input_reach
from gossamer.explain.overlap import Overlap, compare_tickets
from gossamer.explain.paths import PathFacts, count_paths, path_facts
from gossamer.explain.signs import Signs, count_sign_flips
from gossamer.explain.unit_graph import unit_graph
from gossamer.model.wrappers import unwrap
from gossamer.prune.masks import Masks
from gossamer.reopen import FinishedRound, ticket_of_size
from gossamer.shrink.arguments import as_call
from gossamer.shrink.trace import trace
from gossamer.shrink.understand import understand
from gossamer.tasks import Metric, Split
from gossamer.tasks.sample import sample

NOT_A_GRAPH = "the network holds operations that are not understood as connections between units: "


@dataclass(frozen=True)
class Explanation:
    """Facts about the network of a round. Every fact says in `how` how it was computed."""

    dead_units: DeadUnits
    inputs: InputReach | None
    fans: Fans | None
    paths: PathFacts | None
    ablation: Ablation | None
    decision: Decision | None
    signs: Signs | None
    overlaps: tuple[Overlap, ...]
    missing: dict[str, str]
    """Name of a fact that is None -> why."""
    run: str = ""
    round: int = 0
    task: str = ""
    seed: int | None = None

    def to_json(self) -> str:
        """All facts as one JSON object. Numbers of paths are written to the last digit, which readers that keep
        numbers as float64 do not."""
        return json.dumps(asdict(self), indent=1, allow_nan=False)


def explain_model(
    model: nn.Module,
    examples: Split,
    metric: Metric,
    masks: Masks,
    *,
    example: int = 0,
    ablation_examples: int | None = 1000,
    fractions: Sequence[float] = FRACTIONS,
) -> Explanation:
    """Facts about any pruned classifier that torch.fx can trace.

    Args:
        model: on the CPU; is not changed. Taken in evaluation mode.
        examples: validation data; of those that are read while they are used the first, see `tasks.sample`.
        masks: of the prunable weights, True where kept, such as those of `gossamer.load_masks`.
        example: row of `examples` whose prediction is explained.
        ablation_examples: how many of them the ablation is measured on; None: no ablation.
        fractions: shares of each layer's survivors that the ablation removes.

    Raises:
        GossamerError: the model cannot be traced, or there is no such example.
    """
    seen = sample(examples)
    if not 0 <= example < len(seen):
        raise ConfigurationError(f"there is no example {example}; expected 0 to {len(seen) - 1}")
    model = copy.deepcopy(unwrap(model)).eval()
    traced = trace(model, as_call(next(iter(seen.first(16)))))
    network = understand(traced)
    graph = unit_graph(network)
    missing: dict[str, str] = {}
    reach = fans = paths = None
    if graph is None:
        missing |= dict.fromkeys(("inputs", "fans", "paths"), NOT_A_GRAPH + (", ".join(network.not_understood)))
    else:
        counted = count_paths(graph)
        fans = find_fans(graph)
        dense = unit_graph(network, dense=True)
        assert dense is not None
        paths = path_facts(graph, counted, dense)
        reach = find_input_reach(network, graph, counted)
        if reach is None:
            missing["inputs"] = "there are several inputs, or something else than layers reads the input"
    ablation = None
    if metric.whole_set is not None:
        missing["ablation"] = f"{metric.name} is measured over a whole set, and not by example"
    elif ablation_examples is not None:
        ablation = ablate(model, masks, seen.first(ablation_examples), metric, fractions)
    else:
        missing["ablation"] = "it was not asked for"
    one = seen.one(example)
    decision = None
    if isinstance(one.targets, Tensor) and one.targets.shape == (1,) and not one.targets.is_floating_point():
        decision = find_decision(model, as_call(one), int(one.targets), masks, example=example, graph=graph)
    if decision is None:
        missing["decision"] = "the network does not return one row of classes"
    missing["signs"] = "they are compared between the rounds of a run"
    return Explanation(
        find_dead_units(traced, network, masks, seen), reach, fans, paths, ablation, decision, None, (), missing
    )


def explain_round(ticket: FinishedRound, *, against: Sequence[Path] = (), **options: Any) -> Explanation:
    """Facts about a round of a run of `gossamer compress`.

    Args:
        against: folders of other runs of the same task, whose tickets are compared with this one: in each the round
            whose number of kept weights is nearest.
        options: those of `explain_model`.

    Raises:
        GossamerError: see `explain_model`; or a folder is no run, damaged, or one of another network.
    """
    facts = explain_model(ticket.model, ticket.data.validation, ticket.task.metric, ticket.masks, **options)
    missing = {name: why for name, why in facts.missing.items() if name != "signs"}
    signs = count_sign_flips(ticket.until_now()) if ticket.record.round > 0 else None
    if signs is None:
        missing["signs"] = "there is no round before the dense one"
    if not against:
        missing["overlaps"] = "no other run was given to compare with"
    return replace(
        facts,
        signs=signs,
        overlaps=tuple(_compare(ticket, other) for other in against),
        missing=missing,
        run=ticket.folder.name,
        round=ticket.record.round,
        task=ticket.task.name,
        seed=ticket.record.seed,
    )


def _compare(ticket: FinishedRound, other: Path) -> Overlap:
    nearest, masks = ticket_of_size(other, ticket.record.kept)
    return compare_tickets(ticket.masks, masks, name=str(other), number=nearest.round, seed=nearest.seed)
