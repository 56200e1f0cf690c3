"""The README's picture: `python docs/images/make_before_after.py`, after `make demo`.

A crop of a held-out photograph at natural size: camera noise of ISO 25600, the float network, the
integers of the chip, from left to right. Prints the PSNR of each over the whole photograph.
"""

from pathlib import Path

import click
import numpy as np

import starlight
from quant.graph_files import load_graph
from quant.interpret import run
from starlight.denoise.images import write_image
from starlight.errors import OneLineErrors
from starlight.evaluation import evaluation_photographs, image_seed, psnr
from starlight.noise import NoiseCondition

ROOT = Path(__file__).resolve().parents[2]
PHOTOGRAPH, CONDITION = "chelsea", "iso_25600"
CROP = np.s_[48:272, 112:368]
GAP = 6  # white pixels between the panels

_path = click.Path(path_type=Path)


@click.command(cls=OneLineErrors)
@click.option("--weights", default="edge", show_default=True)
@click.option("--graph", type=_path, default=ROOT / "runs/qat-edge/graph.json")
@click.option("--out", type=_path, default=ROOT / "docs/images/before_after.png")
def main(weights: str, graph: Path, out: Path) -> None:
    """Write the picture noisy | float | int8."""
    clean = evaluation_photographs()[PHOTOGRAPH]
    noisy = NoiseCondition.parse(CONDITION).apply(clean, image_seed(PHOTOGRAPH, CONDITION))
    panels = {
        "noisy": noisy,
        "float": starlight.Denoiser(weights).denoise(noisy),
        "int8": run(load_graph(graph), noisy),
    }
    for name, panel in panels.items():
        click.echo(f"{name:<6}{psnr(clean, panel):6.2f} dB")
    gap = np.full((clean[CROP].shape[0], GAP, 3), 255, np.uint8)
    noisy_crop, float_crop, int8_crop = (panel[CROP] for panel in panels.values())
    write_image(out, np.concatenate([noisy_crop, gap, float_crop, gap, int8_crop], axis=1))


if __name__ == "__main__":
    main()
