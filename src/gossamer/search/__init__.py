"""Finding how much of every layer to keep: AMC (He et al., ECCV 2018), for any network. Needs `gossamer[amc]`."""

from gossamer.search.budget import Budget, flops, weights
from gossamer.search.errors import SearchError
from gossamer.search.policy import Policy
from gossamer.search.searching import search

__all__ = ["Budget", "Policy", "SearchError", "flops", "search", "weights"]
