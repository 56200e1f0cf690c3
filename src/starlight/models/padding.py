"""Images of any size on the network's grid: replicate the last column and row, right and bottom."""

from torch import Tensor
from torch.nn.functional import pad


def pad_to_grid(images: Tensor, grid: int) -> Tensor:
    """[N, C, H, W] -> [N, C, ceil(H / grid) * grid, ceil(W / grid) * grid]; H, W >= 1.

    Raises ValueError for an empty image.
    """
    height, width = images.shape[-2:]
    if height < 1 or width < 1:
        raise ValueError(f"image: height and width must be at least 1, got {height} x {width}")
    bottom, right = -height % grid, -width % grid
    return pad(images, (0, right, 0, bottom), mode="replicate") if bottom or right else images


def crop(images: Tensor, height: int, width: int) -> Tensor:
    """Undo `pad_to_grid`: the upper left height x width of [N, C, H', W']."""
    return images[..., :height, :width]
