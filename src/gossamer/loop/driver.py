"""`gossamer.rounds`: what is asked for, verified before anything is trained, and then run."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar

from torch import nn

from gossamer.arguments import plain, require_kind, whole_number
from gossamer.errors import ConfigurationError, GossamerWarning
from gossamer.loop.agreement import require_one_configuration, require_one_folder
from gossamer.loop.configuration import Configuration
from gossamer.loop.opening import make_folder
from gossamer.loop.plan import Plan
from gossamer.loop.pruned_model import PrunedModel
from gossamer.loop.round import Round
from gossamer.loop.run import Run
from gossamer.loop.settings import Settings
from gossamer.loop.shards import check_sharded
from gossamer.loop.stop import Stop
from gossamer.model.sharded import own_class
from gossamer.model.stored import storable
from gossamer.model.wrappers import unwrap
from gossamer.prune.choose import check, own_target, require_losses
from gossamer.prune.cut import Cut
from gossamer.prune.prunable import prunable_weights
from gossamer.prune.remarks import remarks
from gossamer.prune.scope import Scope
from gossamer.quantise.network import require_roundable
from gossamer.ranks.group import current
from gossamer.rewind import snapshot
from gossamer.rewind.parts import is_in_parts, require_steps_seen
from gossamer.rewind.strategies import Retraining
from gossamer.storage.files import absolute

T = TypeVar("T")


def rounds(
    model: nn.Module,
    *,
    folder: str | Path,
    target_sparsity: float | None = None,
    stop: Stop | None = None,
    cut: Cut | None = None,
    retraining: Retraining | None = None,
    scope: Scope | None = None,
    state: Mapping[str, Any] | None = None,
    seed: int | None = None,
    settings: Mapping[str, Any] | None = None,
    dense: str | Path | None = None,
    origin: Mapping[str, Any] | None = None,
) -> Iterator[Round]:
    """Compresses `model` by iterative global magnitude pruning with learning-rate rewinding, around the user's loop.

        for round in gossamer.rounds(model, target_sparsity=0.95, folder="runs/mine"):
            train(model)                       # the user's own: first learning rate to last
            round.record(accuracy=evaluate(model))

    Round 0 trains the dense network; before every further one the smallest weights are pruned. When the folder
    already holds rounds of this very run, the last one is put into the model, with the random generators as they were
    after it, and the loop goes on with the next. After the loop the model is the last round's or, with
    `Stop(max_drop=...)`, the smallest within the allowed loss; any round comes back with `gossamer.load_round`.

    Args:
        model: trained in place. Its class, hooks and `state_dict` stay as they are.
        folder: where the rounds are kept; made if it is not there.
        target_sparsity: short for `stop=Stop(target_sparsity=...)`: pruned / prunable weights to end at, exactly.
        stop: when it ends, if not, or not only, at a sparsity: `gossamer.Stop`.
        cut: what is cut, and how much at a time: `gossamer.Cut`; by default the paper's 20% of the smallest magnitudes.
        retraining: how it is retrained: `gossamer.Retraining`; by default learning-rate rewinding.
        scope: which weights are prunable: `gossamer.Scope`; by default those of every convolution,
            linear and recurrent layer.
        state: what lives on across rounds, by name, such as {"optimizer": optimizer}: objects with `state_dict` and
            `load_state_dict`, saved with every round and restored on resuming. What each round makes anew needs none.
        seed: of the criterion "random"; recorded otherwise, for the loop draws its own random numbers.
        settings: anything else that decides what the run computes (plain values); recorded, and compared on resuming.
        dense: folder of another run of the same settings, whose dense round is taken over instead of training it again.
        origin: where things came from (plain values); recorded, and not compared.

    Under torch.distributed every process runs the loop, with the same arguments; see `gossamer.ranks` and
    docs/on-many-machines.md.

    Raises:
        ConfigurationError: an argument is out of range, the folder holds another run, or the processes of one training
            were given several folders.
        RankError: the processes of one training differ, or one of them is gone.
        NothingToPruneError: no weight is prunable, or the target would prune none.
        CheckpointError: the folder is damaged or cannot be written.

    Source: Renda, Frankle, Carbin 2020, sections 2 and 3, algorithm 1; code of the paper: everything that is rewound.
    """
    require_kind("folder", folder, (str, Path), "a path")
    require_kind("dense", dense, (str, Path, NoneType), "the folder of another run")
    for name, mapping in {"state": state, "settings": settings, "origin": origin}.items():
        require_kind(name, mapping, (Mapping, NoneType), "a dictionary")
    seed = None if seed is None else whole_number("seed", seed)
    cut = _object("cut", cut, Cut)
    require_losses(cut)
    scope = _object("scope", scope, Scope)
    weights = prunable_weights(model, scope)
    stop = _stop(target_sparsity, _object("stop", stop, Stop), own_target(cut, weights))
    _check_one_shot(cut, stop)
    retraining = _object("retraining", retraining, Retraining)
    asked = Settings(stop, cut, retraining, scope, seed)
    plan = Plan.of(sum(weight.numel() for weight in weights.values()), stop, cut)
    if retraining.quantised_rounds:
        _check_quantised_rounds(retraining, plan, model, weights)
    if retraining.strategy.weights == "new" and retraining.fresh_model is None:
        snapshot.check_can_reinitialise(model)
    check(cut, model, weights, None if plan.last is None else plan.kept(plan.last))
    check_sharded(retraining, model)
    storable(model)
    for remark in remarks(model, scope, weights):
        warnings.warn(remark, GossamerWarning, stacklevel=2)
    for name, thing in (state or {}).items():
        if not (hasattr(thing, "state_dict") and hasattr(thing, "load_state_dict")):
            raise ConfigurationError(
                f"state[{name!r}] is a {type(thing).__name__}; expected an object with state_dict and load_state_dict"
            )
    network = PrunedModel(model, weights, state or {})
    configuration = _configuration(asked, network, plan, settings or {}, origin or {})
    # The loop may change the working directory; the run stays where it is.
    folder, dense = absolute(folder), None if dense is None else absolute(dense)
    ranks = current()
    if ranks.several:
        _check_ranks(retraining, network.state)
    require_one_folder(ranks, folder)
    require_one_configuration(ranks, configuration)
    with ranks.together():
        if ranks.first:
            make_folder(folder)
    return Run(network, folder, plan, asked, dense, ranks).begin(configuration)


def plan_of(model: nn.Module, stop: Stop, cut: Cut, scope: Scope) -> Plan:
    """How many weights every round of a run of these settings keeps.

    Raises:
        ConfigurationError: as `rounds`.
    """
    weights = prunable_weights(model, scope)
    stop = _stop(None, stop, own_target(cut, weights))
    _check_one_shot(cut, stop)
    return Plan.of(sum(weight.numel() for weight in weights.values()), stop, cut)


def _object(name: str, given: T | None, kind: type[T]) -> T:
    if given is None:
        return kind()
    require_kind(name, given, kind, f"a gossamer.{kind.__name__}")
    return given


def _stop(target_sparsity: float | None, stop: Stop, own: float | None) -> Stop:
    """When to stop, however it was said; at last at the densities that the cut ends at."""
    if target_sparsity is not None:
        if stop != Stop():
            raise ConfigurationError(
                f"target_sparsity is {target_sparsity!r}, which is short for stop=Stop(target_sparsity=...), and stop "
                f"was given too; expected one of them: Stop takes the target as well"
            )
        stop = Stop(target_sparsity)
    if not stop.is_said and own is not None:
        stop = replace(stop, target_sparsity=own)
    if not stop.is_said:
        raise ConfigurationError(
            "when to stop was not said; pass target_sparsity=0.95, or stop=gossamer.Stop(max_drop=0.01) or "
            "stop=gossamer.Stop(rounds=10)"
        )
    return stop


def _check_one_shot(cut: Cut, stop: Stop) -> None:
    if cut.one_shot and (stop.target_sparsity is None or stop.rounds is not None or cut.per_round is not None):
        raise ConfigurationError(
            "one_shot cuts once, straight to target_sparsity; give that, and neither rounds nor a share per round"
        )


def _check_quantised_rounds(
    retraining: Retraining, plan: Plan, model: nn.Module, weights: Mapping[str, nn.Parameter]
) -> None:
    if plan.last is None:
        raise ConfigurationError(
            f"quantised_rounds={retraining.quantised_rounds} are the last ones, and with max_drop alone nobody knows "
            f"beforehand which these are; give target_sparsity or rounds too, and as many quantised_rounds as rounds "
            f"to have max_drop decide by quantised networks"
        )
    require_roundable(model, weights)


def _check_ranks(retraining: Retraining, state: Mapping[str, Any]) -> None:
    """What several processes cannot do."""
    if retraining.replicates > 1:
        raise ConfigurationError(
            f"replicates is {retraining.replicates}, and the training is one of several processes; expected one of "
            f"them: the replicates of a round are trained one after the other, in one process"
        )
    for name, thing in state.items():
        require_steps_seen(name, thing)
        if is_in_parts(thing) and "optimizer" in retraining.rewinds:
            raise ConfigurationError(
                f"state[{name!r}] is a {type(thing).__name__}, of which each process holds a part, and "
                f"{retraining.method} is to put it back as a whole; give rewound=['statistics'] or none, or make it "
                f"anew in every round"
            )


def _configuration(
    asked: Settings, network: PrunedModel, plan: Plan, settings: Mapping[str, Any], origin: Mapping[str, Any]
) -> Configuration:
    tables = asked.to_tables()
    tables["method"]["state"] = sorted(network.state)
    tables["model"] = {
        "class": own_class(unwrap(network.model)).__name__,
        "parameters": network.parameters,
        "prunable": plan.prunable,
        "weights": {name: list(weight.shape) for name, weight in network.weights.items()},
    }
    tables["settings"] = plain(settings)
    return Configuration(tables, plain(origin))
