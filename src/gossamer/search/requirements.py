"""The packages that only searches need."""

from gossamer.search.errors import SearchError


def missing(error: ImportError) -> SearchError:
    """The error for a package that cannot be imported: how to get it."""
    return SearchError(
        f"a search needs gymnasium and stable-baselines3, which cannot be imported ({error}). Install them with: "
        f"pip install 'gossamer[amc]'"
    )
