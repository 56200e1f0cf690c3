"""When two adversaries are at rest: a stated rule on both losses, not an impression.

At the equilibrium the discriminator says 1/2 for either order, so each loss is 1/4 + 1/4 = 1/2.
An untrained discriminator says 1/2 too. So the rule is: since the averages of the losses over
`window` steps left the band 1/2 +- `band`, both have been back in it for `patience` steps in a row.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

EQUILIBRIUM = 0.5


@dataclass
class Convergence:
    """Follows the losses of generator and discriminator, step by step."""

    window: int
    band: float
    patience: int
    left: bool = False  # whether the averages have ever been out of the band
    inside: int = 0  # steps in a row within it, since then
    _recent: deque[tuple[float, float]] = field(init=False)

    def __post_init__(self) -> None:
        self._recent = deque(maxlen=self.window)

    def update(self, generator_loss: float, discriminator_loss: float) -> bool:
        """Take the losses of one step; returns whether the rule is met."""
        self._recent.append((generator_loss, discriminator_loss))
        if len(self._recent) < self.window:
            return False
        within = all(abs(average - EQUILIBRIUM) <= self.band for average in self.averages)
        self.left = self.left or not within
        self.inside = self.inside + 1 if self.left and within else 0
        return self.met

    @property
    def met(self) -> bool:
        return self.inside >= self.patience

    @property
    def averages(self) -> tuple[float, float]:
        """Mean losses (generator, discriminator) over the last `window` steps at most."""
        count = max(len(self._recent), 1)
        generator, discriminator = zip(*self._recent, strict=True) if self._recent else ((), ())
        return sum(generator) / count, sum(discriminator) / count

    @property
    def verdict(self) -> str:
        """The state in words."""
        if self.met:
            return f"converged: both losses within 1/2 +- {self.band:g} for {self.inside} steps"
        if not self.left:
            return "not converged: the discriminator has not learnt to tell real from generated"
        generator, discriminator = self.averages
        return (
            f"not converged: mean losses of the last steps {generator:.3f} (generator) and "
            f"{discriminator:.3f} (discriminator), within 1/2 +- {self.band:g} for {self.inside} "
            f"of {self.patience} steps"
        )

    def state(self) -> dict[str, Any]:
        return {"left": self.left, "inside": self.inside, "recent": list(self._recent)}

    def load(self, state: dict[str, Any]) -> None:
        self.left, self.inside = state["left"], state["inside"]
        self._recent.clear()
        self._recent.extend((g, d) for g, d in state["recent"])
