"""Finding how much of every layer to keep: AMC (He et al., ECCV 2018), for any network. Needs `gossamer[amc]`."""

from typing import TYPE_CHECKING, Any

from gossamer.first_use import attribute

if TYPE_CHECKING:
    from gossamer.search.budget import Budget, flops, weights
    from gossamer.search.errors import SearchError
    from gossamer.search.policy import Policy
    from gossamer.search.searching import search
    from gossamer.search.settings import SearchSettings

__all__ = ["Budget", "Policy", "SearchError", "SearchSettings", "flops", "search", "weights"]

_HOMES = {
    "Budget": "gossamer.search.budget",
    "Policy": "gossamer.search.policy",
    "SearchError": "gossamer.search.errors",
    "SearchSettings": "gossamer.search.settings",
    "flops": "gossamer.search.budget",
    "search": "gossamer.search.searching",
    "weights": "gossamer.search.budget",
}


def __getattr__(name: str) -> Any:
    return attribute(__name__, _HOMES, name)
