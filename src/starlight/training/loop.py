"""The training loop that float training and quantisation-aware training share.

It shows progress, stops cleanly on Ctrl-C, writes checkpoints atomically and resumes exactly: every
batch is a function of the step, and the checkpoint holds everything else. Same seed, settings,
machine and thread count give the same weights; another thread count or instruction set can change
the order of float sums and with it the last bits.
"""

import io
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from tqdm import tqdm

from starlight.files import write_atomically

Batches = Callable[[int], tuple[Tensor, Tensor]]
Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]

HISTORY_POINTS = 200


class TrainingSettings(BaseModel):
    """How long and how fast to train.

    steps          optimiser steps; the learning rate follows a cosine over them
    minutes        a cap on training time: the cosine then ends at whichever comes first. A run that
                   the cap shortens depends on the machine's speed
    learning_rate  peak, of AdamW, after `warmup` steps
    ema            decay of the moving average of the weights, which is what is kept; 0 keeps the
                   last weights
    precision      `bfloat16` runs convolutions under autocast
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=10_000, ge=1)
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

    after_step: called after every optimiser step (projections). `identity` names what is trained
    (config, data); a checkpoint of another identity or other settings is refused on resume.
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
    ) -> None:
        # Channels last is the faster layout for these convolutions on CPUs.
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.batches = batches
        self.settings = settings
        self.checkpoint = Path(folder) / "checkpoint.pt"
        self.loss = loss
        self.after_step = after_step
        self.identity = identity
        groups = parameters or [{"params": list(network.parameters())}]
        self.optimiser = torch.optim.AdamW(
            groups, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        for group in self.optimiser.param_groups:
            group["peak"] = group["lr"]
        self.average = {
            name: value.detach().clone() for name, value in self.network.state_dict().items()
        }
        self.step = 0
        self.seconds = 0.0
        self.interrupted = False
        self.history: list[tuple[int, float]] = []  # (step, smoothed loss), HISTORY_POINTS of them

    @property
    def done(self) -> bool:
        return self._progress() >= 1.0

    def _progress(self) -> float:
        by_steps = self.step / self.settings.steps
        if self.settings.minutes is None:
            return by_steps
        return max(by_steps, self.seconds / (60.0 * self.settings.minutes))

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
        )
        with bar, self._stop_on_interrupt():
            started = saved = time.monotonic() - self.seconds
            running = self.history[-1][1] if self.history else None
            while not self.done and not self.interrupted:
                loss = self._one_step()
                running = loss if running is None else 0.98 * running + 0.02 * loss
                now = time.monotonic()
                self.seconds = now - started
                if self.step % max(1, self.settings.steps // HISTORY_POINTS) == 0:
                    self.history.append((self.step, running))
                bar.update()
                bar.set_postfix_str(self._status(running), refresh=False)
                if now - saved > self.settings.checkpoint_seconds:
                    self.save()
                    saved = now
        self.save()
        return not self.interrupted

    def _status(self, loss: float) -> str:
        text = f"loss {loss:.5f}"
        progress = self._progress()
        if self.settings.minutes is not None and progress > 0:
            text += f", {self.seconds * (1 - progress) / progress:.0f} s left"
        return text

    def _one_step(self) -> float:
        self._set_learning_rate()
        noisy, clean = (
            batch.to(memory_format=torch.channels_last) for batch in self.batches(self.step)
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
            loss = self.loss(self.network, noisy, clean)
        if not math.isfinite(value := loss.item()):
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
        self._update_average()
        return value

    def _set_learning_rate(self) -> None:
        settings = self.settings
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, self._progress())))
        ramp = min(1.0, (self.step + 1) / (settings.warmup + 1))
        for group in self.optimiser.param_groups:
            low = settings.final_learning_rate * group["peak"] / settings.learning_rate
            group["lr"] = ramp * (low + (group["peak"] - low) * cosine)

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

    def load_average(self) -> None:
        """Put the averaged weights into the network (nothing when `ema` is 0)."""
        if self.settings.ema:
            self.network.load_state_dict(self.average)

    @contextmanager
    def _stop_on_interrupt(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(signum: int, frame: FrameType | None) -> None:
            self.interrupted = True

        previous = {
            number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def save(self) -> None:
        buffer = io.BytesIO()
        torch.save(
            {
                "identity": self.identity,
                "settings": self.settings.model_dump(exclude={"checkpoint_seconds"}),
                "network": self.network.state_dict(),
                "average": self.average,
                "optimiser": self.optimiser.state_dict(),
                "step": self.step,
                "seconds": self.seconds,
                "history": self.history,
            },
            buffer,
        )
        write_atomically(self.checkpoint, buffer.getvalue())

    def resume(self) -> None:
        """Go on from `checkpoint.pt`.

        Raises FileNotFoundError when there is none, ValueError when it is damaged or belongs to
        other settings or another network.
        """
        what = f"checkpoint {self.checkpoint}"
        if not self.checkpoint.is_file():
            raise FileNotFoundError(f"{what}: file must exist to resume, got none")
        try:
            state = torch.load(self.checkpoint, weights_only=True, map_location="cpu")
        except Exception as error:
            raise ValueError(f"{what}: file must be a complete checkpoint, got {error}") from error
        wanted = self.settings.model_dump(exclude={"checkpoint_seconds"})
        for name, value in {"identity": self.identity, **wanted}.items():
            got = state["identity"] if name == "identity" else state["settings"].get(name)
            if got != value:
                raise ValueError(f"{what}: {name} must be {value!r} to resume, got {got!r}")
        self.network.load_state_dict(state["network"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]
        self.seconds = state["seconds"]
        self.history = state["history"]
