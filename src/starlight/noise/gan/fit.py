"""Adversarial training of the noise generator: alternate steps, checkpoints, sample sheets."""

from __future__ import annotations

import copy
import io
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from starlight.distributed import World
from starlight.files import write_atomically, write_table
from starlight.noise.baseline import VarianceModel
from starlight.noise.gan.condition import Units, planes
from starlight.noise.gan.config import FitSettings, GanConfig
from starlight.noise.gan.convergence import Convergence
from starlight.noise.gan.data import Crops, CropSampler
from starlight.noise.gan.generate import NoiseGenerator
from starlight.noise.gan.networks import (
    Answers,
    Discriminator,
    Generator,
    discriminator_loss,
    generator_loss,
)
from starlight.noise.gan.sheet import write_sheet
from starlight.noise.pair_images import PairImages
from starlight.signals import on_stop_signal

Ending = Literal["converged", "steps", "minutes", "interrupted"]
Monitor = Callable[[NoiseGenerator], dict[str, float]]
_Network = TypeVar("_Network", bound=nn.Module)

LEVEL_KNOTS = 17
CALIBRATION_BATCHES = 50
LOG_POINTS = 1000
SHEET_ROWS = 6
# The generator's rate once batch norm's statistics are fixed: its layers then grow as they are
# told to, and at the full rate the images saturated within a hundred steps.
FIXED_RATE = 0.25


class NoiseFit:
    """Fits a generator to pairs, keeping everything in `folder`:

    checkpoint.pt, generator.safetensors (the moving average), losses.csv, sheets/STEP.png.

    monitor: figures of a generator, taken with every sheet and logged beside the losses.
    Same pairs, settings, machine, threads and processes give the same weights, resumed or not.
    """

    def __init__(
        self,
        images: PairImages,
        config: GanConfig,
        settings: FitSettings,
        folder: str | os.PathLike[str],
        *,
        world: World | None = None,
        monitor: Monitor | None = None,
    ) -> None:
        self.images = images
        self.config = config
        self.settings = settings
        self.folder = Path(folder)
        self.world = world or World()
        self.monitor = monitor
        self.sampler = CropSampler(images, config.crop, settings.seed)
        self.units = Units(VarianceModel.fit(images, LEVEL_KNOTS), images.white)
        self.baseline = VarianceModel.fit(images)
        self.step = 0
        self.fixed = False  # batch norm's statistics
        torch.manual_seed(settings.seed)
        self.generator = self._placed(Generator(config))
        self.discriminator = self._placed(Discriminator(config))
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self._generator_call = self.world.wrap(self.generator)
        self._discriminator_call = self.world.wrap(self.discriminator)
        self.optimisers = {
            "generator": self._adam(self.generator, settings.learning_rate),
            "discriminator": self._adam(self.discriminator, settings.discriminator_rate),
        }
        self.convergence = Convergence(settings.window, settings.band, settings.patience)
        self.seconds = 0.0
        self.interrupted = False
        self.log: list[dict[str, float]] = []

    def _placed(self, network: _Network) -> _Network:
        # Channels last is the faster layout for these convolutions on CPUs.
        return network.to(self.world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @staticmethod
    def _adam(network: nn.Module, rate: float) -> torch.optim.Adam:
        return torch.optim.Adam(network.parameters(), lr=rate, betas=(0.5, 0.99))

    @property
    def ending(self) -> Ending | None:
        """Why training ends now; None while it goes on."""
        if self.convergence.met:
            return "converged"
        if self.step >= self.settings.steps:
            return "steps"
        if self.settings.minutes is not None and self.seconds >= 60.0 * self.settings.minutes:
            return "minutes"
        return "interrupted" if self.interrupted else None

    def run(self) -> Ending:
        """Train to the end; the checkpoint and the generator are then written."""
        bar = tqdm(
            total=self.settings.steps,
            initial=self.step,
            desc="noise fit",
            unit="step",
            dynamic_ncols=True,
            mininterval=1.0,
            disable=None if self.world.is_writer else True,
        )
        if self.world.is_writer:
            (self.folder / "sheets").mkdir(parents=True, exist_ok=True)
        with bar, on_stop_signal(self._stop):
            started = saved = time.monotonic() - self.seconds
            while (ending := self._agreed_ending()) is None:
                losses = self._one_step()
                now = time.monotonic()
                self.seconds = now - started
                self.convergence.update(*losses)
                generator, discriminator = self.convergence.averages
                bar.update()
                bar.set_postfix_str(f"G {generator:.3f} D {discriminator:.3f}", refresh=False)
                if self.step % max(1, self.settings.steps // LOG_POINTS) == 0:
                    self._note(losses)
                if self.step % self.settings.sheet_steps == 0:
                    self._report()
                if now - saved > self.settings.checkpoint_seconds:
                    self.save()
                    saved = now
        if ending != "interrupted":
            self._report()
        self.save()
        return ending

    def _agreed_ending(self) -> Ending | None:
        """`ending`, decided together: clocks and signals differ between processes."""
        if self.world.size == 1:
            return self.ending
        self.interrupted = self.world.any(self.interrupted)
        self.seconds = self.world.mean(self.seconds)[0]
        return self.ending

    def _one_step(self) -> tuple[float, float]:
        self._set_rates()
        if not self.fixed and self._progress() >= self.settings.fix_statistics:
            self._fix_statistics()
        places = self.world.part(self.settings.batch)
        crops = self.sampler.batch(self.step, places)
        condition, real, deviations = self._seen(crops)
        truth = crops.truth.to(self.world.device)
        bfloat16 = self.settings.precision == "bfloat16"

        def fake(call: nn.Module, stream: int) -> Tensor:
            noise = self._noise(crops.truth.shape, stream, places.start)
            with self._autocast(bfloat16):
                residual = call(condition[:, :5], noise).float()
            return (self.units.image(truth, residual, deviations) - truth) / deviations

        def answers(call: nn.Module, generated: Tensor) -> Answers:
            with self._autocast(bfloat16):
                return call(condition, real, generated)

        with torch.no_grad():
            generated = fake(self.generator, 0)
        said = answers(self._discriminator_call, generated)
        d_loss = discriminator_loss(said)
        penalty = self.settings.logit_penalty * said.logits.square().mean()
        self._descend("discriminator", d_loss + penalty)
        self.discriminator.requires_grad_(False)
        g_loss = generator_loss(answers(self.discriminator, fake(self._generator_call, 1)))
        self._descend("generator", g_loss)
        self.discriminator.requires_grad_(True)
        self.step += 1
        self._update_average()
        generator, discriminator = self.world.mean(g_loss.item(), d_loss.item())
        if not math.isfinite(generator + discriminator):
            raise ValueError(
                f"noise fit: losses must stay finite, got {generator} and {discriminator} at step "
                f"{self.step}; choose a lower learning rate"
            )
        return generator, discriminator

    def _seen(self, crops: Crops) -> tuple[Tensor, Tensor, Tensor]:
        """(condition [N, 6, H, W], real residual, deviations [N, 3, H, W]) on the device."""
        deviations = self.units.deviations(crops.truth, crops.gains)
        residual = (crops.noisy - crops.truth) / deviations
        condition = planes(crops.truth, crops.gains).contiguous(memory_format=torch.channels_last)
        device = self.world.device
        return condition.to(device), residual.to(device), deviations.to(device)

    def _noise(self, shape: torch.Size, stream: int, first: int) -> Tensor:
        """Normal noise of this step, made on the CPU: it does not depend on the device."""
        seed = hash((self.settings.seed, self.step, stream, first)) & (2**63 - 1)
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(shape, generator=generator).to(self.world.device)

    def _autocast(self, enabled: bool) -> torch.autocast:
        return torch.autocast(self.world.device.type, torch.bfloat16, enabled=enabled)

    def _descend(self, name: str, loss: Tensor) -> None:
        self.optimisers[name].zero_grad(set_to_none=True)
        loss.backward()
        self.optimisers[name].step()

    def _progress(self) -> float:
        """Share of the budget that is spent, in steps or minutes."""
        progress = self.step / self.settings.steps
        if self.settings.minutes is not None:
            progress = max(progress, self.seconds / (60.0 * self.settings.minutes))
        return progress

    def _set_rates(self) -> None:
        falling = min(1.0, max(0.0, 2.0 * self._progress() - 1.0))
        factor = 0.1 + 0.9 * 0.5 * (1.0 + math.cos(math.pi * falling))
        fixed = FIXED_RATE if self.fixed else 1.0
        rates = (fixed * self.settings.learning_rate, self.settings.discriminator_rate)
        for optimiser, rate in zip(self.optimisers.values(), rates, strict=True):
            optimiser.param_groups[0]["lr"] = factor * rate

    @torch.no_grad()
    def _update_average(self) -> None:
        """average = d * average + (1 - d) * weights, d ramped up as (1 + step) / (10 + step)."""
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        for kept, value in zip(self.average.parameters(), self.generator.parameters(), strict=True):
            kept.lerp_(value, 1.0 - decay)

    @torch.no_grad()
    def averaged(self) -> NoiseGenerator:
        """The generator that is kept: averaged weights, batch norm's statistics fixed."""
        network = copy.deepcopy(self.average)
        if not self.fixed:
            self._gather_statistics(network)
        gains = [(pair.analog_gain, pair.correcting_gain) for pair in self.images.pairs]
        return NoiseGenerator(network.eval(), self.config, self.units, self.baseline, gains)

    @torch.no_grad()
    def _gather_statistics(self, network: Generator) -> None:
        """Set batch norm's statistics to their means over 50 batches under these weights."""
        network.train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None
        for inputs in self._calibration_inputs():
            network(*inputs)

    def _fix_statistics(self) -> None:
        """From here on the generator trains as it will be used: no image depends on its batch."""
        self._gather_statistics(self.generator)
        self.generator.eval()
        self.average.load_state_dict(self.generator.state_dict())
        self.fixed = True

    def _calibration_inputs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The generator's inputs for 50 batches that training does not see."""
        sampler = CropSampler(self.images, self.config.crop, self.settings.seed + 1)
        random = torch.Generator().manual_seed(self.settings.seed)
        for step in range(CALIBRATION_BATCHES):
            crops = sampler.batch(step, range(self.settings.batch))
            condition, _, _ = self._seen(crops)
            noise = torch.randn(crops.truth.shape, generator=random)
            yield condition[:, :5], noise.to(self.world.device)

    def _note(self, losses: tuple[float, float], **figures: float) -> None:
        averages = self.convergence.averages
        self.log.append(
            {
                "step": self.step,
                "seconds": round(self.seconds, 1),
                "generator": losses[0],
                "discriminator": losses[1],
                "generator_mean": averages[0],
                "discriminator_mean": averages[1],
                **figures,
            }
        )

    def _report(self) -> None:
        """The generator, a sheet of its samples and the monitor's figures, by the writer."""
        if self.world.is_writer:
            kept = self.averaged()
            kept.save(self.folder / "generator.safetensors")
            pairs = self.images.pairs
            rows = [pairs[i * len(pairs) // SHEET_ROWS] for i in range(SHEET_ROWS)]
            write_sheet(
                self.folder / "sheets" / f"{self.step:07d}.png",
                kept,
                [(pair, *self.images.read(pair)) for pair in dict.fromkeys(rows)],
            )
            if self.monitor is not None:
                self._note(self.convergence.averages, **self.monitor(kept))
        self.world.wait()

    def _stop(self) -> None:
        self.interrupted = True

    def _identity(self) -> dict[str, str]:
        """What a checkpoint must share with a fit that resumes from it."""
        settings = self.settings.model_dump(exclude={"checkpoint_seconds", "sheet_steps"})
        return {
            "networks": self.config.model_dump_json(),
            "settings": str(settings),
            "pairs": f"{len(self.images.pairs)} pairs, {self.units.model.to_json()}",
            "processes": str(self.world.size),
        }

    def save(self) -> None:
        """Write the checkpoint and the log, atomically."""
        if not self.world.is_writer:
            return
        buffer = io.BytesIO()
        torch.save(
            {
                "identity": self._identity(),
                "generator": self.generator.state_dict(),
                "discriminator": self.discriminator.state_dict(),
                "average": self.average.state_dict(),
                "optimisers": {name: o.state_dict() for name, o in self.optimisers.items()},
                "convergence": self.convergence.state(),
                "step": self.step,
                "seconds": self.seconds,
                "fixed": self.fixed,
                "log": self.log,
            },
            buffer,
        )
        write_atomically(self.folder / "checkpoint.pt", buffer.getvalue())
        columns = list(dict.fromkeys(name for row in self.log for name in row))
        write_table(self.folder / "losses.csv", columns, self.log)

    def resume(self) -> None:
        """Go on from the folder's checkpoint.

        Raises FileNotFoundError when there is none, ValueError when it is damaged or belongs to
        other networks, settings or pairs.
        """
        path = self.folder / "checkpoint.pt"
        what = f"checkpoint {path}"
        if not path.is_file():
            raise FileNotFoundError(f"{what}: file must exist to resume, got none")
        try:
            state = torch.load(path, weights_only=True, map_location=self.world.device)
            identity = state["identity"]
        except Exception as error:
            raise ValueError(f"{what}: file must be a complete checkpoint, got {error}") from error
        for name, value in self._identity().items():
            if identity[name] != value:
                raise ValueError(
                    f"{what}: {name} must be {value[:200]} to resume, got {identity[name][:200]}"
                )
        self.generator.load_state_dict(state["generator"])
        self.discriminator.load_state_dict(state["discriminator"])
        self.average.load_state_dict(state["average"])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        self.convergence.load(state["convergence"])
        self.step, self.seconds, self.log = state["step"], state["seconds"], state["log"]
        self.fixed = state["fixed"]
        self.generator.train(not self.fixed)
