"""Training until the loss is at most a threshold, with a network that grows when the loss stalls.

Source: US 12,394,023 B2, claim 3. The loss that is compared is that of the averaged weights, which
are what is kept, on check pairs of which training sees none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from starlight.distributed import World
from starlight.models.checkpoint import load_network
from starlight.models.config import DenoiserConfig
from starlight.models.cost import parameter_count
from starlight.models.denoiser import DenoisingNetwork, default_backend
from starlight.ops import Backend
from starlight.training.config import TrainingConfig
from starlight.training.data import mixed_seed
from starlight.training.growth import Growth
from starlight.training.logs import Row, RunLog
from starlight.training.loop import Batches, Trainer
from starlight.training.losses import sample_loss

End = Literal["threshold reached", "steps done", "ladder exhausted", "budget spent", "interrupted"]
EXIT_CODES: Final[dict[End, int]] = {
    "threshold reached": 0,
    "steps done": 0,  # no threshold was set
    "ladder exhausted": 3,
    "budget spent": 4,
    "interrupted": 130,
}
PEAK = 255.0 / 128.0  # the range of pixels in the network's units


def _backend(config: DenoiserConfig, world: World | None) -> Backend:
    """The fused kernels are the CPU's."""
    on_cpu = world is None or world.device.type == "cpu"
    return default_backend(config) if on_cpu else "reference"


class ThresholdTrainer(Trainer):
    """Trains the rungs of `config`, one network growing into the next, until an `end`.

    batches, checks: this process's part of the training batch of a step, of check batch i.
    facts: what else a checkpoint must agree in to be resumed (what the data holds).
    """

    def __init__(
        self,
        config: TrainingConfig,
        batches: Batches,
        checks: Batches,
        folder: str | Path,
        *,
        facts: Mapping[str, Any] | None = None,
        world: World | None = None,
    ) -> None:
        self.config = config
        self.rungs = config.rungs
        self.backend = config.backend or _backend(self.rungs[-1], world)
        self.checks = checks
        self.data_facts = dict(facts or {})
        self.log = RunLog(Path(folder), config.log.tensorboard)
        self.rung = 0
        self.grown_at: list[int] = []  # the steps at which the network grew
        self.drops = 0  # of the learning rate, on this rung
        self.lowest = math.inf  # check loss on this rung
        self.without_gain = 0  # checks in a row
        self.stalled = False  # nothing but growth is left to try
        self.checked: tuple[float, float] | None = None  # the last check: loss, PSNR in dB
        self.checked_at: int | None = None  # its step
        self._since_row = [0.0, 0.0]  # sum and number of losses
        super().__init__(
            self._fresh_network(0), batches, config.training, folder, loss=self._loss, world=world
        )

    def _fresh_network(self, rung: int) -> DenoisingNetwork:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mixed_seed(self.config.seed, rung))
            network = DenoisingNetwork(self.rungs[rung], self.backend)
        if rung == 0 and self.config.weights is not None:
            start = load_network(self.config.weights, expected=self.rungs[0])
            network.load_state_dict(start.state_dict())
        return network

    def _loss(self, network: nn.Module, noisy: Tensor, clean: Tensor) -> Tensor:
        return sample_loss(self.config.training.loss, network(noisy), clean)

    @property
    def end(self) -> End | None:
        """Why training is over, or None."""
        threshold = self.config.training.threshold
        if threshold is not None and self.checked is not None and self.checked[0] <= threshold:
            return "threshold reached"
        if self.stalled and self.rung == len(self.rungs) - 1:
            return "ladder exhausted"
        if self.progress >= 1.0:
            return "steps done" if threshold is None else "budget spent"
        return "interrupted" if self.interrupted else None

    @property
    def done(self) -> bool:
        return self.end is not None

    def run(self) -> bool:
        """Train to an `end`; returns False when that is `interrupted`."""
        self._grow_if_stalled()  # a resumed run may have been given more rungs
        super().run()
        if self.checked_at != self.step and self.end in ("steps done", "budget spent"):
            self._check()
            self.save()
        return self.end != "interrupted"

    def _status(self, loss: float) -> str:
        text = super()._status(loss)
        if self.checked is not None:
            text += f", check {self.checked[0]:.5f} ({self.checked[1]:.2f} dB)"
        return f"{text}, rung {self.rung}"

    def _one_step(self) -> float:
        loss = super()._one_step()
        self._since_row[0] += loss
        self._since_row[1] += 1
        return loss

    def _after_step(self) -> None:
        policy = self.config.growth
        if self.step % policy.check_every == 0:
            loss = self._check()
            if self.config.training.schedule == "plateau" and self.end != "threshold reached":
                self._judge(loss)
                self._grow_if_stalled()
        elif self.step % self.config.log.every == 0:
            self._add_row()

    def _judge(self, loss: float) -> None:
        """Progress, or a stall: then a lower learning rate, or growth."""
        policy = self.config.growth
        if loss < self.lowest * (1 - policy.gain):
            self.lowest, self.without_gain = loss, 0
            return
        self.without_gain += 1
        if self.without_gain == policy.patience:
            self.without_gain = 0
            self.stalled = self.drops == policy.drops
            self.drops += not self.stalled

    def _check(self) -> float:
        self.checked, self.checked_at = self.check(), self.step
        self._add_row(self.checked)
        return self.checked[0]

    @torch.no_grad()
    def check(self) -> tuple[float, float]:
        """(loss, PSNR in dB) of the averaged weights on the check pairs."""
        kept = {name: value.detach() for name, value in self.kept().items()}
        batches = self.config.growth.check_batches
        loss, squares = 0.0, 0.0
        for index in range(batches):
            noisy, clean = self._on_device(self.checks(index))
            with self._autocast():
                output = functional_call(self.network, kept, (noisy,))
            loss += sample_loss(self.config.training.loss, output, clean).item() / batches
            squares += sample_loss("l2", output, clean).item() / batches
        loss, squares = self.world.mean(loss, squares)
        return loss, 10 * math.log10(PEAK**2 / max(squares, 1e-20))

    def _add_row(self, checked: tuple[float, float] | None = None) -> None:
        total, count = self._since_row
        self._since_row = [0.0, 0.0]
        if not self.world.is_writer:
            return
        rate = self.optimiser.param_groups[0]["lr"]
        loss, seconds = total / max(count, 1), round(self.seconds, 3)
        self.log.add(Row(self.step, seconds, self.rung, rate, loss, *(checked or ())))

    def _grow_if_stalled(self) -> None:
        """The next rung: weights, their average and the optimiser's moments are carried over."""
        if not self.stalled or self.rung == len(self.rungs) - 1:
            return
        old, new = self.network, self._fresh_network(self.rung + 1).to(self.world.device)
        growth = Growth(self.rungs[self.rung], self.rungs[self.rung + 1])
        fresh = new.state_dict()
        average = growth.grown(self.average, fresh)
        moments = {
            kind: {name: self.optimiser.state[p][kind] for name, p in old.named_parameters()}
            for kind in ("exp_avg", "exp_avg_sq")
        }
        new.load_state_dict(growth.grown(old.state_dict(), fresh))
        done = self.optimiser.state[next(old.parameters())]["step"]
        self._take(new)
        self.network.train()
        for name, value in average.items():
            self.average[name].copy_(value)
        parameters = dict(new.named_parameters())
        for kind, old_moments in moments.items():
            for name, moment in growth.moments(old_moments, parameters).items():
                state = self.optimiser.state[parameters[name]]
                state.setdefault("step", done.clone())
                state[kind] = moment
        self.rung += 1
        self.grown_at.append(self.step)
        self.drops, self.without_gain = 0, 0
        self.lowest, self.stalled = math.inf, False

    def _rate(self) -> float:
        if self.config.training.schedule == "cosine":
            return super()._rate()
        policy = self.config.growth
        return (policy.restart if self.rung else 1.0) * policy.drop_factor**self.drops

    def _steps_since_start(self) -> int:
        return self.step - (self.grown_at[-1] if self.grown_at else 0)

    def _facts(self) -> dict[str, Any]:
        # What is not set says nothing: options of newer versions leave checkpoints valid.
        config = self.config.model_dump(mode="json", exclude_none=True)
        facts: dict[str, Any] = {"seed": config["seed"], "backend": self.backend}
        if "weights" in config:
            facts["weights"] = config["weights"]
        free = {"checkpoint_seconds", "threshold"}
        if self.config.training.schedule == "plateau":
            free |= {"steps", "minutes"}  # they decide when to stop, not the way there
        for section, names in (("training", free), ("growth", {"ladder"})):
            for name, value in config[section].items():
                if name not in names:
                    facts[f"{section}.{name}"] = value
        return facts | {"data": config["data"], "check": config["check"], **self.data_facts}

    def _state(self) -> dict[str, Any]:
        return {
            **super()._state(),
            "rungs": [rung.to_json() for rung in self.rungs[: self.rung + 1]],
            "grown_at": self.grown_at,
            "policy": [self.drops, self.lowest, self.without_gain, self.stalled],
            "checked": self.checked,
            "checked_at": self.checked_at,
            "rows": self.log.state(),
            "since_row": self._since_row,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        for index, saved in enumerate(state["rungs"]):
            wanted = self.rungs[index].to_json() if index < len(self.rungs) else "no such rung"
            if saved != wanted:
                raise ValueError(
                    f"checkpoint {self.checkpoint}: rung {index} must be {wanted} to resume, "
                    f"got {saved}"
                )
        self.rung = len(state["rungs"]) - 1
        self._take(self._fresh_network(self.rung))
        super()._restore(state)
        self.grown_at = state["grown_at"]
        self.drops, self.lowest, self.without_gain, self.stalled = state["policy"]
        self.checked, self.checked_at = state["checked"], state["checked_at"]
        self.log.restore(state["rows"])
        self._since_row = state["since_row"]

    def save(self) -> None:
        super().save()
        if self.world.is_writer:
            self.log.write()

    def summary(self) -> dict[str, Any]:
        """What became of the run, in JSON types."""
        loss, psnr = self.checked if self.checked is not None else (None, None)
        began = [0, *self.grown_at]
        return {
            "end": self.end,
            "threshold": self.config.training.threshold,
            "loss": loss,
            "psnr_db": psnr,
            "steps": self.step,
            "seconds": round(self.seconds, 1),
            "rung": self.rung,
            "rungs": [
                {
                    "config": config.model_dump(),
                    "parameters": parameter_count(config),
                    "began_at": began[index] if index < len(began) else None,
                }
                for index, config in enumerate(self.rungs)
            ],
            "processes": self.world.size,
            "threads": torch.get_num_threads(),
            "backend": self.backend,
        }
