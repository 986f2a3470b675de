"""The engines that networks are compared on: one table, one way to open and to time each."""

from gossamer.bench.engines.engine import ENGINE_ORDER, BothForms, EngineFailed, Runner, engine_names, open_runner

__all__ = ["ENGINE_ORDER", "BothForms", "EngineFailed", "Runner", "engine_names", "open_runner"]
