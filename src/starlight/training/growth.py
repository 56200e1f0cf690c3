"""A network that becomes wider or deeper and computes what it computed before.

Widening (after Net2Net, Chen et al. 2016, with zeros in place of halved copies): new channels read
everything and are read by new channels alone; the weights from them to old channels start at zero.
Deepening: the old middle becomes the dense block of a new level, whose upsampling starts at zero
and whose decoder block starts as the identity. The zeros get gradients in the first step, what they
switched off in the next ones.

The output stays the same but for the order of float sums. One case is not kept: a deeper network
with skip `module`, where everything must pass the new level's smaller image.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from starlight.models.config import DenoiserConfig

FIXED_CHOICES = ("skip", "residual", "upsampling", "subtraction")
Segments = list[tuple[int, int]]  # channels (before, after) of each tensor that is joined


@dataclass(frozen=True)
class Place:
    """Where a convolution of the old network lies in the new one's: its name and channels."""

    name: str
    outputs: Tensor
    inputs: Tensor
    transposed: bool = False  # the weight is [inputs, outputs, k, k]

    @property
    def weight_index(self) -> tuple[Tensor, Tensor]:
        rows, columns = self.outputs, self.inputs
        if self.transposed:
            rows, columns = columns, rows
        return rows[:, None], columns[None, :]


@dataclass(frozen=True)
class Growth:
    """The way of every weight of a network of config `old` into one of config `new`.

    Raises ValueError when `new` is not `old` made wider, deeper or both.
    """

    old: DenoiserConfig
    new: DenoiserConfig

    def __post_init__(self) -> None:
        for name in FIXED_CHOICES:
            before, after = getattr(self.old, name), getattr(self.new, name)
            if before != after:
                raise ValueError(f"growth: {name} must stay {before!r}, got {after!r}")
        for name in ("levels", "widths", "growths"):
            before, after = getattr(self.old, name), getattr(self.new, name)
            pairs = [(before, after)] if name == "levels" else zip(before, after, strict=False)
            if any(later < earlier for earlier, later in pairs):
                raise ValueError(f"growth: {name} must not shrink from {before}, got {after}")
        if self.old == self.new:
            raise ValueError(f"growth: config must differ from before, got {self.new.to_json()}")

    @property
    def keeps_function(self) -> bool:
        """Whether the new network computes what the old one did."""
        return self.old.levels == self.new.levels or self.old.skip != "module"

    def grown(self, old: Mapping[str, Tensor], fresh: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The new network's state: the old weights in their places, zeros and `fresh` ones around.

        old: a state of the old network (weights, or their moving average). fresh: the state of an
        initialised network of config `new`, of which the weights into new channels are taken.
        """
        grown = {name: value.detach().clone() for name, value in fresh.items()}
        for place in self._places().values():
            weight, bias = grown[f"{place.name}.weight"], grown[f"{place.name}.bias"]
            weight.index_fill_(int(place.transposed), place.outputs.to(weight.device), 0.0)
            bias.index_fill_(0, place.outputs.to(bias.device), 0.0)
        if self.new.levels > self.old.levels and self.keeps_function:
            self._silence(grown, f"decoder.{self.old.levels}")
        self._place(old, grown)
        return grown

    def moments(self, old: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A moment of the optimiser for each parameter that has old entries; zero for new ones.

        old: the moment by the old network's names; like: the new network's parameters.
        """
        names = [
            f"{place.name}.{kind}"
            for place in self._places().values()
            for kind in ("weight", "bias")
        ]
        moments = {name: torch.zeros_like(like[name]) for name in names}
        self._place(old, moments)
        return moments

    def _place(self, old: Mapping[str, Tensor], target: dict[str, Tensor]) -> None:
        for name, place in self._places().items():
            weight, bias = target[f"{place.name}.weight"], target[f"{place.name}.bias"]
            rows, columns = (index.to(weight.device) for index in place.weight_index)
            weight[rows, columns] = old[f"{name}.weight"].to(weight.dtype)
            bias[place.outputs.to(bias.device)] = old[f"{name}.bias"].to(bias.dtype)

    def _silence(self, state: dict[str, Tensor], step: str) -> None:
        """Upsampling gives zero; the dense block gives its input."""
        for name in (f"{step}.up.conv", f"{step}.dense.fuse"):
            state[f"{name}.weight"].zero_()
            state[f"{name}.bias"].zero_()
        if self.new.residual == "literal":  # fuse reads [x + c, x, a, b]
            fuse = state[f"{step}.dense.fuse.weight"]  # [M, 4M, 1, 1]
            width = fuse.shape[0]
            fuse[:, width : 2 * width, 0, 0] = torch.eye(width)

    def _places(self) -> dict[str, Place]:
        """Convolution of the old network -> its place in the new one."""
        old, new = self.old, self.new
        widths = list(zip(old.widths, new.widths, strict=False))
        growths = list(zip(old.growths, new.growths, strict=False))
        places: dict[str, Place] = {}

        def dense(before: str, after: str, level: int) -> None:
            segments: Segments = [widths[level]]
            for conv in ("conv1", "conv2", "conv3"):
                outputs = _indices([growths[level]])
                places[f"{before}.{conv}"] = Place(f"{after}.{conv}", outputs, _indices(segments))
                segments.append(growths[level])
            # Residual `literal` joins in another order, all of one width: the same indices.
            fused = Place(f"{after}.fuse", _indices([widths[level]]), _indices(segments))
            places[f"{before}.fuse"] = fused

        def conv(name: str, outputs: Segments, inputs: Segments, transposed: bool = False) -> None:
            places[name] = Place(name, _indices(outputs), _indices(inputs), transposed)

        image: Segments = [(3, 3)]
        shuffled = 4 if old.upsampling == "pixel_shuffle" else 1
        conv("head", [widths[0]], image)
        for level in range(old.levels):
            below = [widths[level + 1]]
            dense(f"encoder.{level}.dense", f"encoder.{level}.dense", level)
            conv(f"encoder.{level}.down", below, [widths[level]])
            before, after = widths[level]
            outputs = [(shuffled * before, shuffled * after)]
            conv(f"decoder.{level}.up.conv", outputs, below, old.upsampling == "transposed")
            dense(f"decoder.{level}.dense", f"decoder.{level}.dense", level)
        deeper = new.levels > old.levels
        middle = f"encoder.{old.levels}.dense" if deeper else "middle.dense"
        dense("middle.dense", middle, old.levels)
        conv("second", [widths[0]], [widths[0]])
        conv("tail", image, [widths[0]])
        return places


def _indices(segments: Segments) -> Tensor:
    """Where the channels of the joined tensors lie after each has grown at its end."""
    starts = [sum(after for _, after in segments[:index]) for index in range(len(segments))]
    return torch.cat(
        [
            torch.arange(start, start + before)
            for start, (before, _) in zip(starts, segments, strict=True)
        ]
    )
