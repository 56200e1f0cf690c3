"""Machines that run a bundle, behind one face; the first is the reference."""

from hls_export.executors.c_runtime import CRuntime
from hls_export.executors.engine import Engine
from hls_export.executors.executor import Executor, Result
from hls_export.executors.numpy_interpreter import NumpyInterpreter
from hls_export.executors.planned_runtime import PlannedRuntime

EXECUTORS: tuple[Executor, ...] = (NumpyInterpreter(), CRuntime(), PlannedRuntime(), Engine())

__all__ = ["EXECUTORS", "Engine", "Executor", "Result"]
