"""What a run leaves beside its weights: rows as CSV, TensorBoard events, a plot of the loss."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from starlight.files import write_table

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@dataclass(frozen=True)
class Row:
    """One line of log.csv.

    loss: mean of the training loss since the row before. check_loss, check_psnr (dB): of the
    averaged weights on the check pairs, where a check was made at this step.
    """

    step: int
    seconds: float
    rung: int
    learning_rate: float
    loss: float
    check_loss: float | None = None
    check_psnr: float | None = None


class RunLog:
    """The rows of a run. They belong to its checkpoint, so a resumed run's log has no gap.

    Raises ImportError when TensorBoard is wanted and not installed.
    """

    def __init__(self, folder: Path, tensorboard: bool = False) -> None:
        self.folder = folder
        self.rows: list[Row] = []
        self._events: SummaryWriter | None = None
        self._tensorboard = tensorboard
        if tensorboard:
            _event_writer()

    def add(self, row: Row) -> None:
        """A new row; or, for the step of the last one, its check."""
        written: tuple[str, ...] = ()
        if self.rows and self.rows[-1].step == row.step:
            last = self.rows.pop()
            row = replace(row, loss=last.loss, seconds=last.seconds)
            written = ("loss", "learning_rate", "rung")
        self.rows.append(row)
        if self._tensorboard:
            if self._events is None:
                # Events of a killed run from this step on are no longer shown.
                self._events = _event_writer()(self.folder / "tensorboard", purge_step=row.step)
            for name in ("loss", "check_loss", "check_psnr", "learning_rate", "rung"):
                if name not in written and (value := getattr(row, name)) is not None:
                    self._events.add_scalar(name, value, row.step)

    def state(self) -> list[dict[str, Any]]:
        return [asdict(row) for row in self.rows]

    def restore(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows = [Row(**row) for row in rows]

    def write(self) -> None:
        """log.csv, atomically, and the events so far."""
        columns = [field.name for field in fields(Row)]
        write_table(self.folder / "log.csv", columns, self.state())
        if self._events is not None:
            self._events.flush()

    def close(self) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None


def _event_writer() -> type[SummaryWriter]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            "log: tensorboard must be installed for log.tensorboard = true, got none; "
            "pip install tensorboard"
        ) from error
    return SummaryWriter


def plot_loss(rows: Sequence[Row], threshold: float | None = None) -> bytes:
    """Loss over steps as a PNG file, with the threshold and where the network grew."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(
        [row.step for row in rows], [row.loss for row in rows], lw=1, alpha=0.6, label="training"
    )
    checks = [(row.step, row.check_loss) for row in rows if row.check_loss is not None]
    if checks:
        axes.plot(*zip(*checks, strict=True), marker=".", label="check pairs, averaged weights")
    if threshold is not None:
        axes.axhline(threshold, color="black", ls="--", lw=1, label=f"threshold {threshold:g}")
    grown = [
        (before.step, after.rung) for before, after in pairwise(rows) if after.rung != before.rung
    ]
    for step, rung in grown:
        axes.axvline(step, color="tab:red", lw=1, alpha=0.7)
        axes.annotate(
            f"rung {rung}", (step, 1), (3, -10), xycoords=("data", "axes fraction"),
            textcoords="offset points", color="tab:red", fontsize=8,
        )  # fmt: skip
    positive = all(row.loss > 0 for row in rows)
    axes.set(xlabel="step", ylabel="loss", yscale="log" if positive else "linear")
    axes.grid(which="both", alpha=0.2)
    if rows:
        axes.legend()
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    return image.getvalue()
