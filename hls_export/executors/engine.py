"""The engine of csrc/engine, called through its Python module."""

from hls_export.executors.native import NativeExecutor


class Engine(NativeExecutor):
    """The network at the speed of this machine, on all its cores."""

    name = "engine"
    what = "engine"
    module = "_engine"


native = Engine.native
