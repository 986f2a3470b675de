"""What a search raises."""

from gossamer.errors import ConfigurationError


class SearchError(ConfigurationError):
    """A search cannot be made as it was asked for."""
