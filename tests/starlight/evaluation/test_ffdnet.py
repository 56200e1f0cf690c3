"""FFDNet: its structure, what its reader refuses, and its published figures where the file is."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from strategies import random_image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from starlight.denoise.images import read_image
from starlight.evaluation import psnr
from starlight.evaluation.ffdnet import (
    MACS_PER_PIXEL,
    PARAMETERS,
    WIDTH,
    FFDNet,
    denoise,
    load_ffdnet,
)
from starlight.evaluation.suites import noisy_input, scored
from starlight.noise import GaussianNoise

ROOT = Path(__file__).resolve().parents[3]

# Zhang, Zuo, Zhang, IEEE Trans. Image Processing 27(9), 2018: CBSD68 by sigma.
PUBLISHED = {15: 33.87, 25: 31.21, 50: 27.96}

# Of the run that reproduced them on all 68 images (docs/EVALUATION.md).
AT_SIGMA_25 = {"101085.png": 28.1355, "143090.png": 34.6538, "253055.png": 33.5336}


def adding() -> FFDNet:
    """The network whose weights make it image + sigma, for an image >= 0."""
    network = FFDNet()
    convolutions = [layer for layer in network.model if isinstance(layer, nn.Conv2d)]
    with torch.no_grad():
        for layer in convolutions:
            layer.weight.zero_()
            layer.bias.zero_()
            passed = min(13, *layer.weight.shape[:2])
            layer.weight[range(passed), range(passed), 1, 1] = 1.0
        convolutions[-1].weight[:, 12, 1, 1] = 1.0
    return network


def test_its_size_is_the_published_one() -> None:
    with torch.device("meta"):
        network, image = FFDNet(), torch.empty(1, 3, 64, 64)
    with FlopCounterMode(display=False) as counter:
        network(image, 0.1)
    assert counter.get_total_flops() / 2 / 64**2 == MACS_PER_PIXEL
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS
    shapes = [tuple(layer.weight.shape) for layer in network.model if hasattr(layer, "weight")]
    assert shapes == [(WIDTH, 13, 3, 3), *[(WIDTH, WIDTH, 3, 3)] * 10, (12, WIDTH, 3, 3)]


def test_pixels_and_sigma_come_back_in_their_units() -> None:
    image = random_image(0, 7, 10)
    wanted = np.minimum(image.astype(int) + 9, 255)
    np.testing.assert_array_equal(denoise(adding(), image, 9.0), wanted)
    floats = image / np.float32(255.0)
    result = denoise(adding(), floats, 51.0)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, floats + 0.2, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (9, 12), (12, 9), (11, 13)])
def test_an_odd_side_is_extended_by_its_last_pixels(height: int, width: int) -> None:
    torch.manual_seed(0)
    network = FFDNet()
    image = torch.rand(1, 3, height, width)
    rows = [*range(height), *[height - 1] * (height % 2)]
    columns = [*range(width), *[width - 1] * (width % 2)]
    with torch.inference_mode():
        found = network(image, 0.1)
        wanted = network(image[:, :, rows][..., columns], 0.1)[..., :height, :width]
    assert found.shape == image.shape
    assert torch.equal(found, wanted)


class Pickled:
    """What a weights file must not make us build."""


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ({"model.0.weight": torch.zeros(96, 13, 3, 3)}, "tensors must be those of FFDNet"),
        (FFDNet().state_dict() | {"model.0.bias": torch.zeros(64)}, r"got \('model.0.bias', "),
        (
            FFDNet().state_dict() | {"model.0.bias": torch.full((96,), torch.nan)},
            "tensors must be finite",
        ),
        ([1, 2], "tensors must be those of FFDNet for colour, got"),
        (Pickled(), "file must hold tensors alone"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: object, rule: str) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=rule):
        load_ffdnet(tmp_path / "weights.pth")


def test_damaged_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="file must exist"):
        load_ffdnet(tmp_path / "none.pth")
    torch.save(FFDNet().state_dict(), tmp_path / "whole.pth")
    data = (tmp_path / "whole.pth").read_bytes()
    for length in (0, 100, len(data) // 2):
        (tmp_path / "cut.pth").write_bytes(data[:length])
        with pytest.raises(ValueError, match="file must hold tensors alone"):
            load_ffdnet(tmp_path / "cut.pth")


def test_a_file_gives_its_network(tmp_path: Path) -> None:
    torch.save(adding().state_dict(), tmp_path / "weights.pth")
    image = random_image(1, 6, 6)
    np.testing.assert_array_equal(
        denoise(load_ffdnet(tmp_path / "weights.pth"), image, 3.0), denoise(adding(), image, 3.0)
    )


def test_the_document_has_the_published_figures() -> None:
    document = (ROOT / "docs/EVALUATION.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- evaluation-gaussian:begin -->\n(.*?)\n\n", document, re.S)
    assert found is not None
    titles, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()
    ]
    (row,) = (row for row in rows if row[0] == "ffdnet, sigma oracle")
    for sigma, published in PUBLISHED.items():
        measured = float(row[titles.index(f"CBSD68 sigma_{sigma} float")].split(" / ")[0])
        assert measured == pytest.approx(published, abs=0.05)


@pytest.mark.skipif(
    not {"FFDNET", "CBSD68"} <= os.environ.keys(),
    reason="environment variables FFDNET (ffdnet_color.pth) and CBSD68 (folder) are not set",
)
@pytest.mark.parametrize("image", AT_SIGMA_25)
def test_images_of_cbsd68_have_their_figures(image: str) -> None:
    clean = read_image(Path(os.environ["CBSD68"]) / image)
    noisy = noisy_input(clean, image, GaussianNoise(25), "float_unclipped")
    network = load_ffdnet(os.environ["FFDNET"])
    found = psnr(clean, scored(denoise(network, noisy, 25.0)))
    assert found == pytest.approx(AT_SIGMA_25[image], abs=0.005)
