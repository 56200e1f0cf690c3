"""The one face of every machine that runs a bundle."""

from dataclasses import dataclass
from typing import Protocol

from quant.interpret import Trace
from quant.intmath import UInt8Array


@dataclass(frozen=True, eq=False)
class Result:
    """What a machine made of an image.

    output  uint8 [H, W, 3]
    layers  layer name -> int8 [h, w, C] that the layer wrote, at the size of the padded image; for
            the tail the padded output, uint8 [Hp, Wp, 3]; in execution order
    """

    output: UInt8Array
    layers: Trace


class Executor(Protocol):
    """A machine. It sees what a device sees: a bundle's bytes and an image."""

    @property
    def name(self) -> str:
        """One word, unique in the registry."""
        ...

    def available(self) -> str | None:
        """None when the machine can run here, else why not and what would change that."""
        ...

    def run(self, bundle: bytes, image: UInt8Array) -> Result:
        """Run uint8 [H, W, 3]; call only while `available()` is None.

        Raises TypeError or ValueError when the bundle or the image is refused.
        """
        ...
