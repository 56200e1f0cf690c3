"""The training loop that float training and quantisation-aware training share.

It shows progress, stops cleanly on Ctrl-C, writes checkpoints atomically and resumes exactly: every
batch is a function of the step, and the checkpoint holds everything else. Same seed, settings,
machine and thread count give the same weights; another thread count, number of processes or
instruction set can change the order of float sums and with it the last bits.

Several processes train as one (`starlight.distributed`): each gives `batches` that are its part.
"""

import io
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from tqdm import tqdm

from starlight.distributed import World
from starlight.files import write_atomically
from starlight.signals import on_stop_signal

Batches = Callable[[int], tuple[Tensor, Tensor]]
Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]

HISTORY_POINTS = 200
SMOOTHING = 0.98  # of the loss that is shown
CHECKPOINT = "checkpoint.pt"


class TrainingSettings(BaseModel):
    """How long and how fast to train.

    steps          optimiser steps; the learning rate follows a cosine over them
    minutes        a cap on training time: the cosine then ends at whichever comes first. A run that
                   the cap shortens depends on the machine's speed
    learning_rate  peak, of AdamW, after `warmup` steps
    gradient_norm  longer gradients are shortened to this
    ema            decay of the moving average of the weights, which is what is kept; 0 keeps the
                   last weights
    precision      `bfloat16` runs convolutions under autocast
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: int | None = Field(default=10_000, ge=1)
    minutes: float | None = Field(default=None, gt=0)
    learning_rate: float = Field(default=1e-3, gt=0)
    final_learning_rate: float = Field(default=1e-6, ge=0)
    warmup: int = Field(default=200, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    gradient_norm: float = Field(default=0.5, gt=0)
    ema: float = Field(default=0.999, ge=0, lt=1)
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    checkpoint_seconds: float = Field(default=60.0, gt=0)


def l1_loss(network: nn.Module, noisy: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute error in the network's units."""
    return (network(noisy) - clean).abs().mean()


class Trainer:
    """Trains `network` in place and keeps `checkpoint.pt` in `folder`.

    batches: this process's part of the batch of a step. after_step: called after every optimiser
    step (projections). `identity` names what is trained (config, data); a checkpoint of another
    identity or other settings is refused on resume.
    """

    def __init__(
        self,
        network: nn.Module,
        batches: Batches,
        settings: TrainingSettings,
        folder: str | os.PathLike[str],
        *,
        loss: Loss = l1_loss,
        after_step: Callable[[], None] | None = None,
        identity: str = "",
        parameters: list[dict[str, Any]] | None = None,
        world: World | None = None,
    ) -> None:
        self.batches = batches
        self.settings = settings
        self.checkpoint = Path(folder) / CHECKPOINT
        self.loss = loss
        self.after_step = after_step
        self.identity = identity
        self.world = world or World()
        self.step = 0
        self.seconds = 0.0
        self.interrupted = False  # agreed on by all processes
        self.history: list[
            tuple[int, float]
        ] = []  # (step, smoothed loss), HISTORY_POINTS of `steps`
        self._smoothed: float | None = None
        self._asked_to_stop = False
        self._started = time.monotonic()
        self._take(network, parameters)

    def _take(self, network: nn.Module, parameters: list[dict[str, Any]] | None = None) -> None:
        """Train this network from now on, with a new optimiser and a new average."""
        # PyTorch's convolutions on CPUs are faster with parameters channels last as images are; the
        # fused operators read them contiguous.
        fused = getattr(network, "backend", "reference") == "fused"
        layout = torch.contiguous_format if fused else torch.channels_last
        self.network = network.to(self.world.device, memory_format=layout)  # type: ignore[call-overload]
        self.average = {
            name: value.detach().clone() for name, value in self.network.state_dict().items()
        }
        groups = parameters or [{"params": list(self.network.parameters())}]
        self.optimiser = torch.optim.AdamW(
            groups, lr=self.settings.learning_rate, weight_decay=self.settings.weight_decay
        )
        for group in self.optimiser.param_groups:
            group["peak"] = group["lr"]
        self._joined = self.world.wrap(self.network)

    @property
    def done(self) -> bool:
        return self.progress >= 1.0

    @property
    def progress(self) -> float:
        """Share of the steps or minutes that is done, whichever is further; 1 at the end."""
        steps, minutes = self.settings.steps, self.settings.minutes
        by_steps = self.step / steps if steps else 0.0
        by_time = self.seconds / (60.0 * minutes) if minutes else 0.0
        return max(by_steps, by_time)

    def run(self) -> bool:
        """Train to the end. Returns False when Ctrl-C stopped it (the checkpoint is written)."""
        self.network.train()
        bar = tqdm(
            total=self.settings.steps,
            initial=self.step,
            desc="training",
            unit="step",
            dynamic_ncols=True,
            mininterval=1.0,
            disable=not self.world.is_writer,
        )
        with bar, on_stop_signal(self._stop):
            saved = self.seconds
            self._started = time.monotonic() - saved
            while not self.done and not self.interrupted:
                loss = self._one_step()
                bar.update()
                bar.set_postfix_str(self._status(self._smooth(loss)), refresh=False)
                self._after_step()
                if self.seconds - saved > self.settings.checkpoint_seconds:
                    self.save()
                    saved = self.seconds
        self.save()
        return not self.interrupted

    def _smooth(self, loss: float) -> float:
        """The moving average of the loss, also kept in `history`."""
        before = loss if self._smoothed is None else self._smoothed
        self._smoothed = SMOOTHING * before + (1 - SMOOTHING) * loss
        steps = self.settings.steps
        if steps is not None and self.step % max(1, steps // HISTORY_POINTS) == 0:
            self.history.append((self.step, self._smoothed))
        return self._smoothed

    def _status(self, loss: float) -> str:
        text = f"loss {loss:.5f}"
        progress = self.progress
        if self.settings.minutes is not None and progress > 0:
            text += f", {self.seconds * (1 - progress) / progress:.0f} s left"
        return text

    def _after_step(self) -> None:
        """What a kind of training does between two steps."""

    def _one_step(self) -> float:
        """One step of the optimiser; returns the loss over the batch of the whole world."""
        self._set_learning_rate()
        noisy, clean = self._batch()
        with self._autocast():
            loss = self.loss(self._joined, noisy, clean)
        elapsed = time.monotonic() - self._started
        value, stop, elapsed = self.world.mean(loss.item(), float(self._asked_to_stop), elapsed)
        if not math.isfinite(value):
            raise ValueError(
                f"training: loss must stay finite, got {value} at step {self.step}; "
                "choose a lower learning rate"
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.gradient_norm)
        self.optimiser.step()
        if self.after_step is not None:
            self.after_step()
        self.step += 1
        self.seconds = max(self.seconds, elapsed)
        self.interrupted = stop > 0
        self._update_average()
        return value

    def _batch(self) -> tuple[Tensor, Tensor]:
        """This step's part of the batch; a bad file costs nothing of what was trained so far."""
        try:
            batch = self.batches(self.step)
        except (OSError, ValueError):
            self.save()
            raise
        return self._on_device(batch)

    def _on_device(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        noisy, clean = (
            images.to(self.world.device, memory_format=torch.channels_last) for images in batch
        )
        return noisy, clean

    def _autocast(self) -> torch.autocast:
        enabled = self.settings.precision == "bfloat16"
        return torch.autocast(self.world.device.type, torch.bfloat16, enabled=enabled)

    def _rate(self) -> float:
        """Learning rate over its peak, without the warm-up; the final one is its lower end."""
        return 0.5 * (1 + math.cos(math.pi * min(1.0, self.progress)))

    def _steps_since_start(self) -> int:
        """Steps since the learning rate last had to warm up."""
        return self.step

    def _set_learning_rate(self) -> None:
        settings, rate = self.settings, self._rate()
        ramp = min(1.0, (self._steps_since_start() + 1) / (settings.warmup + 1))
        for group in self.optimiser.param_groups:
            low = settings.final_learning_rate * group["peak"] / settings.learning_rate
            group["lr"] = ramp * (low + (group["peak"] - low) * rate)

    @torch.no_grad()
    def _update_average(self) -> None:
        """average = d * average + (1 - d) * weights, d ramped up as (1 + step) / (10 + step)."""
        if self.settings.ema == 0:
            return
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def kept(self) -> dict[str, Tensor]:
        """The weights that training keeps: the average, or the last ones when `ema` is 0."""
        return self.average if self.settings.ema else self.network.state_dict()

    def load_average(self) -> None:
        """Put the averaged weights into the network (nothing when `ema` is 0)."""
        self.network.load_state_dict(self.kept())

    def _stop(self) -> None:
        self._asked_to_stop = True

    def _facts(self) -> dict[str, Any]:
        """What a checkpoint must have been trained with to be resumed."""
        return {
            "identity": self.identity,
            **self.settings.model_dump(exclude={"checkpoint_seconds"}),
        }

    def _state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
            "smoothed": self._smoothed,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]
        self.seconds = state["seconds"]
        self.history = state["history"]
        self._smoothed = state["smoothed"]

    def save(self) -> None:
        """Write the checkpoint; the one before stands until this one is complete.

        Raises OSError, naming the step from which training can go on, when the disk is full.
        """
        if not self.world.is_writer:
            return
        buffer = io.BytesIO()
        torch.save({"facts": self._facts(), **self._state()}, buffer)
        try:
            write_atomically(self.checkpoint, buffer.getbuffer())
        except OSError as error:
            stands = "the one before stands" if self.checkpoint.is_file() else "there is none yet"
            raise OSError(
                f"checkpoint {self.checkpoint}: disk must take {buffer.tell()} bytes, got "
                f"{error.strerror or error}; {stands}, make room and resume"
            ) from error

    def _saved(self) -> bytes:
        if not self.checkpoint.is_file():
            raise FileNotFoundError(
                f"checkpoint {self.checkpoint}: file must exist to resume, got none"
            )
        return self.checkpoint.read_bytes()

    def resume(self) -> None:
        """Go on from `checkpoint.pt`.

        Raises FileNotFoundError when there is none, ValueError when it is damaged or belongs to
        other settings or another network.
        """
        what = f"checkpoint {self.checkpoint}"
        data = self.world.from_writer(self._saved)
        try:
            state = torch.load(io.BytesIO(data), weights_only=True, map_location=self.world.device)
            saved = state["facts"]
        except Exception as error:
            raise ValueError(f"{what}: file must be a complete checkpoint, got {error}") from error
        facts = self._facts()
        for name in (*facts, *saved):
            value, got = facts.get(name), saved.get(name)
            if got != value:
                raise ValueError(f"{what}: {name} must be {value!r} to resume, got {got!r}")
        self._restore(state)
