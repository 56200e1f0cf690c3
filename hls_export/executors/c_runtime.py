"""The C99 firmware runtime of csrc/runtime, called through its Python module."""

from hls_export.executors.native import NativeExecutor


class CRuntime(NativeExecutor):
    """The very code that firmware links, on this machine."""

    name = "c"
    what = "C runtime"
    module = "_runtime"


native = CRuntime.native
