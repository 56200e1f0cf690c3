"""What a suite found: one table in Markdown, CSV and JSON, figures by image, a sheet of crops."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from starlight import __version__
from starlight.denoise.images import write_image
from starlight.evaluation.columns import Column
from starlight.evaluation.contenders import NOISY, Contender
from starlight.evaluation.photographs import middle
from starlight.evaluation.suite_run import Cell, Image8, Measured, Sheet
from starlight.files import write_atomically, write_json, write_table
from starlight.tables import markdown_table

DEFINITIONS = {
    "psnr": "10 log10(255^2 / MSE), MSE over all pixels and the three channels of RGB together; "
    "mean over images of the dB values",
    "ssim": "Wang et al. 2004: Gaussian window 11 x 11 of sigma 1.5, K1 0.01, K2 0.03, population "
    "covariance, windows inside the image alone, mean over the channels of RGB; mean over images",
    "seconds_per_mp": "clock time of denoising over all megapixels; cpu: of all threads together",
    "worse": "images whose PSNR is below that of their own noisy input, scored alike",
}


@dataclass(frozen=True)
class Report:
    """A suite's rows, columns and cells; left_out: rows that could not run here, with reasons."""

    title: str
    rows: Sequence[Contender]
    columns: Sequence[Column]
    cells: Sequence[Cell]
    left_out: Mapping[str, str]
    threads: int | None

    def cell(self, row: str, column: str) -> Cell:
        (found,) = (cell for cell in self.cells if (cell.row, cell.column) == (row, column))
        return found

    def figures(self, cell: Cell) -> dict[str, Any]:
        """Means of a cell that was measured, and how its images stand to their noisy inputs."""
        noisy = {image.image: image.psnr for image in self.cell(NOISY.name, cell.column).images}
        gains = [
            0.0 if image.psnr == noisy[image.image] else image.psnr - noisy[image.image]
            for image in cell.images
        ]
        sigmas = [image.sigma for image in cell.images if image.sigma is not None]
        return {
            "images": len(cell.images),
            "psnr": float(np.mean([image.psnr for image in cell.images])),
            "ssim": float(np.mean([image.ssim for image in cell.images])),
            "worst_gain_db": min(gains),
            "worse": sum(gain < 0 for gain in gains),
            "sigma": float(np.mean(sigmas)) if sigmas else None,
            "seconds_per_mp": _per_megapixel(cell.images, "seconds"),
            "cpu_seconds_per_mp": _per_megapixel(cell.images, "cpu_seconds"),
        }

    def markdown(self) -> str:
        """Two tables, quality and the worst images, and what has to be said to them."""
        parts = [self._quality(), self._worst(), *self._notes()]
        return "\n\n".join(part for part in parts if part)

    def _quality(self) -> str:
        titles = ["PSNR dB / SSIM", "parameters", "MAC/px", "CPU s/MP", "cores"]
        lines = []
        for row in self.rows:
            images = [image for cell in self._measured(row) for image in cell.images]
            clock, cpu = (_per_megapixel(images, which) for which in ("seconds", "cpu_seconds"))
            lines.append(
                [
                    row.name,
                    "" if row.parameters is None else f"{row.parameters:,}",
                    "" if row.macs_per_pixel is None else f"{row.macs_per_pixel:,.0f}",
                    *(["", ""] if row is NOISY else [f"{cpu:.2f}", f"{cpu / clock:.2f}"]),
                    *(self._text(row, column) for column in self.columns),
                ]
            )
        return markdown_table([*titles, *(column.name for column in self.columns)], lines)

    def _text(self, row: Contender, column: Column) -> str:
        cell = self.cell(row.name, column.name)
        if not cell.images:
            return ""
        figures = self.figures(cell)
        return f"{figures['psnr']:.2f} / {figures['ssim']:.4f}"

    def _worst(self) -> str:
        lines = []
        for row in self.rows:
            if row is not NOISY:
                found = [self._worst_text(self.cell(row.name, c.name)) for c in self.columns]
                lines.append([row.name, *found])
        return markdown_table(
            ["images made worse; worst gain, dB", *(column.name for column in self.columns)], lines
        )

    def _worst_text(self, cell: Cell) -> str:
        if not cell.images:
            return ""
        figures = self.figures(cell)
        return f"{figures['worse']} of {figures['images']}; {figures['worst_gain_db']:+.2f}"

    def _notes(self) -> list[str]:
        notes = []
        sigmas = [
            f"{row.name}: "
            + ", ".join(
                f"{cell.column} {self.figures(cell)['sigma']:.3g}" for cell in self._measured(row)
            )
            for row in self.rows
            if row.told != "nothing" and row.told != "oracle"
        ]
        if sigmas:
            notes.append("Sigma told, mean over images, 8-bit units: " + "; ".join(sigmas) + ".")
        reasons = {
            f"{cell.row} ({cell.reason})": None for cell in self.cells if cell.reason is not None
        }
        if reasons:
            notes.append("Empty cells: " + "; ".join(reasons) + ".")
        notes += [f"Left out: {name}: {reason}." for name, reason in self.left_out.items()]
        return notes

    def _measured(self, row: Contender) -> list[Cell]:
        return [cell for cell in self.cells if cell.row == row.name and cell.images]

    def to_json(self) -> dict[str, Any]:
        """Everything, strict JSON: an infinite PSNR is null."""
        return {
            "title": self.title,
            "version": __version__,
            "threads": self.threads,
            "definitions": DEFINITIONS,
            "left_out": dict(self.left_out),
            "rows": [
                {
                    "name": row.name,
                    "told": row.told,
                    "grid": list(row.grid),
                    "parameters": row.parameters,
                    "macs_per_pixel": row.macs_per_pixel,
                    **row.identity,
                }
                for row in self.rows
            ],
            "columns": [
                {
                    "name": column.name,
                    **column.protocol.model_dump(exclude={"noise"}),
                    "condition": None if column.condition is None else column.condition.name,
                }
                for column in self.columns
            ],
            "cells": [_finite(line) for line in self._cell_lines()],
            "empty": [
                {"row": cell.row, "column": cell.column, "reason": cell.reason}
                for cell in self.cells
                if cell.reason is not None
            ],
            "images": [_finite(line) for line in self._image_lines()],
        }

    def _cell_lines(self) -> list[dict[str, Any]]:
        rows = {row.name: row for row in self.rows}
        return [
            {
                "row": cell.row,
                "column": cell.column,
                **self.figures(cell),
                "parameters": rows[cell.row].parameters,
                "macs_per_pixel": rows[cell.row].macs_per_pixel,
            }
            for cell in self.cells
            if cell.images
        ]

    def _image_lines(self) -> list[dict[str, Any]]:
        return [
            {"row": cell.row, "column": cell.column, **asdict(image)}
            for cell in self.cells
            for image in cell.images
        ]

    def write(self, folder: Path, sheet: Sheet) -> list[Path]:
        """table.md, table.csv, images.csv, report.json and, with crops, sheet.png; their paths."""
        table = folder / "table.md"
        write_atomically(table, f"# {self.title}\n\n{self.markdown()}\n".encode())
        tables = {"table.csv": self._cell_lines(), "images.csv": self._image_lines()}
        for name, lines in tables.items():
            write_table(folder / name, list(lines[0]), lines)
        write_json(folder / "report.json", self.to_json())
        written = [table, *(folder / name for name in tables), folder / "report.json"]
        if any(cell.crops for cell in self.cells):
            write_image(folder / "sheet.png", self.sheet(sheet))
            written.append(folder / "sheet.png")
        return written

    def sheet(self, sheet: Sheet) -> Image8:
        """Crops side by side, uint8 [H, W, 3]: the clean image, then every row; a line per image.

        An empty cell stays grey.
        """
        side, margin = sheet.crop, 16
        lines = [
            (column, i, name) for column in self.columns for i, name in enumerate(sheet.of(column))
        ]
        wide, high = (side + 4) * (len(self.rows) + 1), (side + margin + 4) * len(lines) + margin
        canvas = Image.new("RGB", (wide, high), "white")
        draw = ImageDraw.Draw(canvas)
        for j, title in enumerate(["clean", *(row.name for row in self.rows)]):
            draw.text(((side + 4) * j + 2, 2), _fit(draw, title, side), fill="black")
        for i, (column, number, name) in enumerate(lines):
            top = margin + (side + margin + 4) * i
            draw.text((2, top + 2), f"{column.name}: {name}", fill="black")
            tiles: list[Image8 | None] = [middle(column.read(name)[0], side)]
            for row in self.rows:
                crops = self.cell(row.name, column.name).crops
                tiles.append(crops[number] if crops else None)
            for j, tile in enumerate(tiles):
                if tile is None:
                    tile = np.full((side, side, 3), 208, np.uint8)
                canvas.paste(Image.fromarray(tile), ((side + 4) * j, top + margin))
        return np.array(canvas)


def _per_megapixel(images: Sequence[Measured], which: str) -> float:
    total = sum(image.megapixels for image in images)
    return sum(getattr(image, which) for image in images) / total if total else math.nan


def _finite(line: dict[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in line.items()
    }


def _fit(draw: ImageDraw.ImageDraw, text: str, wide: int) -> str:
    while text and draw.textlength(text) > wide:
        text = text[:-1]
    return text
