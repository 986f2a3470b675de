"""Facts about a surviving network as plain data: what is dead, what inputs reach, which connections matter; each says
how it was computed."""

from gossamer.explain.explanation import Explanation, explain_model, explain_round
from gossamer.explain.picture import draw_input_use

__all__ = ["Explanation", "draw_input_use", "explain_model", "explain_round"]
