"""Runs a suite cell by cell (row x column); a cell that a folder holds already is read, not run."""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from starlight import __version__
from starlight.denoise.images import read_image, write_image
from starlight.evaluation.columns import Column
from starlight.evaluation.contenders import Contender, told_sigma
from starlight.evaluation.metrics import psnr, ssim
from starlight.evaluation.peers import noise_sigma
from starlight.evaluation.photographs import middle
from starlight.evaluation.suites import scored
from starlight.files import write_json

Image8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Measured:
    """One image of a cell.

    sigma: what the row was told, 8-bit units, None for nothing. seconds: of the clock; cpu_seconds:
    of all threads together; both with the blind estimate of sigma, without files, noise, metrics.
    """

    image: str
    psnr: float
    ssim: float
    sigma: float | None
    megapixels: float
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Cell:
    """images: empty where the row refuses the column, for `reason`. crops: for the sheet."""

    row: str
    column: str
    images: tuple[Measured, ...] = ()
    crops: tuple[Image8, ...] = ()
    reason: str | None = None


@dataclass(frozen=True)
class Sheet:
    """Crops to keep: the middle crop x crop of so many images, evenly chosen from a column."""

    crop: int = 128
    images: int = 1

    def of(self, column: Column) -> list[str]:
        names = list(column.images)
        count = min(self.images, len(names))
        return [names[(2 * i + 1) * len(names) // (2 * count)] for i in range(count)]


def run_suite(
    rows: Sequence[Contender],
    columns: Sequence[Column],
    folder: Path | None = None,
    sheet: Sheet | None = None,
    threads: int | None = None,
    progress: bool = False,
) -> list[Cell]:
    """Measure every row on every column, columns outermost.

    folder: keeps each cell as soon as it is done and takes those it has: same version of this
        package, settings, file of weights, images and threads. None: nothing is kept.
    sheet: crops that cells keep for the picture sheet. threads: CPU threads; None: as they are.
    Raises ValueError when every row refuses every column.
    """
    sheet = sheet or Sheet(images=0)
    reasons = {
        (row.name, column.name): row.refuses(column) for row in rows[1:] for column in columns
    }
    if reasons and all(reasons.values()):
        (row_name, column_name), reason = next(iter(reasons.items()))
        raise ValueError(f"suite: {row_name} must fit a column, got {column_name}: it {reason}")
    total = sum(len(column.images) for column in columns) * len(rows)
    cells: list[Cell] = []
    done = 0
    with tqdm(total=total, unit="image", disable=None if progress else True) as bar:
        for column in columns:
            place = _Place(column, column.fingerprint(), folder, sheet, threads)
            for row in rows:
                bar.set_description(f"{column.name}: {row.name}")
                if reason := reasons.get((row.name, column.name)):
                    cell = Cell(row.name, column.name, reason=reason)
                else:
                    cell = (
                        _best(row, place) if row.told == "best" else _cell(row, place, bar.update)
                    )
                cells.append(replace(cell, row=row.name, column=column.name))
                done += len(column.images)
                bar.update(done - bar.n)
    return cells


@dataclass(frozen=True)
class _Place:
    """A column, and where its cells are kept."""

    column: Column
    fingerprint: str
    folder: Path | None
    sheet: Sheet
    threads: int | None

    def path(self, row: Contender) -> Path | None:
        """The file of a cell. Names are no part of it: what is renamed is not measured again."""
        if self.folder is None:
            return None
        parts = {
            "version": __version__,
            "row": row.identity,
            "grid": row.grid,
            "column": self.fingerprint,
            "sheet": asdict(self.sheet),
            "threads": self.threads,
        }
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
        return self.folder / f"{key}.json"


def _best(row: Contender, place: _Place) -> Cell:
    """The cell of the best sigma; every sigma tried is a cell of its own, kept as any other."""
    tried: dict[float, Cell] = {}

    def mean_psnr(sigma: float) -> float:
        if sigma not in tried:
            identity = row.identity | {"sigma": sigma}
            tried[sigma] = _cell(replace(row, told=sigma, grid=(), identity=identity), place)
        return float(np.mean([image.psnr for image in tried[sigma].images]))

    return tried[climb(row.grid, _mean_estimate(place.column), mean_psnr)]


def _cell(row: Contender, place: _Place, step: Callable[[int], Any] = lambda _: None) -> Cell:
    """The cell that is kept, or else measured now; step is called with 1 after every image."""
    path = place.path(row)
    cell = None if path is None else _kept(path)
    if cell is None:
        with _threads(place.threads):
            cell = _measure(row, place.column, place.sheet, step)
        if path is not None:
            _keep(path, cell)
    return cell


def climb(grid: Sequence[float], start: float, score: Callable[[float], float]) -> float:
    """The first peak of score over a grid, climbing from the value nearest to start."""
    place = min(range(len(grid)), key=lambda i: abs(grid[i] - start))
    while True:
        around = range(max(place - 1, 0), min(place + 2, len(grid)))
        best = max(around, key=lambda i: (score(grid[i]), i == place))
        if best == place:
            return grid[place]
        place = best


def _mean_estimate(column: Column) -> float:
    return float(
        np.mean(
            [noise_sigma(scored(column.read(name)[1], rounded=False)) for name in column.images]
        )
    )


def _measure(row: Contender, column: Column, sheet: Sheet, step: Callable[[int], Any]) -> Cell:
    names, shown = list(column.images), set(sheet.of(column))
    _, first = column.read(names[0])
    row.denoise(first[:64, :64].copy(), 10.0)  # a first call sets things up
    images, crops = [], []
    for name in names:
        clean, noisy = column.read(name)
        clock, cpu = time.perf_counter(), time.process_time()
        sigma = told_sigma(row, column, noisy)
        output = row.denoise(noisy, sigma)
        seconds, cpu_seconds = time.perf_counter() - clock, time.process_time() - cpu
        estimate = scored(output, column.rounded)
        images.append(
            Measured(
                name,
                psnr(clean, estimate),
                ssim(clean, estimate),
                None if math.isnan(sigma) else sigma,
                clean.shape[0] * clean.shape[1] / 1e6,
                seconds,
                cpu_seconds,
            )
        )
        if name in shown:
            crops.append(middle(scored(output), sheet.crop))
        step(1)
    return Cell(row.name, column.name, tuple(images), tuple(crops))


def _keep(path: Path, cell: Cell) -> None:
    """The JSON file last: it stands for a complete cell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for number, crop in enumerate(cell.crops):
        write_image(path.with_suffix(f".{number}.png"), crop)
    images = [
        {name: None if value == math.inf else value for name, value in asdict(image).items()}
        for image in cell.images
    ]
    fields = {"row": cell.row, "column": cell.column, "crops": len(cell.crops), "images": images}
    write_json(path, fields)


def _kept(path: Path) -> Cell | None:
    """The cell of a file, None when there is no such file. Raises ValueError for another file."""
    if not path.is_file():
        return None
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        images = tuple(
            Measured(**image | {"psnr": math.inf if image["psnr"] is None else image["psnr"]})
            for image in fields["images"]
        )
        crops = tuple(
            read_image(path.with_suffix(f".{number}.png")) for number in range(fields["crops"])
        )
        return Cell(fields["row"], fields["column"], images, crops)
    except (ValueError, TypeError, KeyError, FileNotFoundError) as error:
        raise ValueError(
            f"suite: kept cell {path} must be as it was written, got {error}; delete it"
        ) from None


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """CPU threads of torch and OpenCV, where loaded, inside the block."""

    torch, cv2 = sys.modules.get("torch"), sys.modules.get("cv2")
    before = (torch and torch.get_num_threads(), cv2 and cv2.getNumThreads())
    if count is not None:
        _set_threads(torch, cv2, (count, count))
    try:
        yield
    finally:
        if count is not None:
            _set_threads(torch, cv2, before)


def _set_threads(torch: Any, cv2: Any, counts: tuple[Any, Any]) -> None:
    if torch is not None:
        torch.set_num_threads(counts[0])
    if cv2 is not None:
        cv2.setNumThreads(counts[1])
