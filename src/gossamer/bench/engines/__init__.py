"""The engines that networks are compared on: one table, one way to open and to time each."""

from gossamer.bench.engines.engine import ENGINE_ORDER, EngineFailed, Runner, Subject, engine_names, open_runner

__all__ = ["ENGINE_ORDER", "EngineFailed", "Runner", "Subject", "engine_names", "open_runner"]
