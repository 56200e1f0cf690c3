"""The denoising network: a U of dense residual blocks around a global subtraction.

    head -> [dense block, stride-2 conv] x levels -> dense block -> [up, dense block] x levels
         -> second conv (+ head's output) -> tail; output = input - tail

Source: US 12,394,023 B2, FIG. 2 and 3. Choices left open there are fields of `DenoiserConfig`.
All convolutions but those of other upsamplings than `pixel_shuffle` run on a backend of
`starlight.ops`.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from starlight.models.config import DenoiserConfig
from starlight.ops import Backend, built_backend, operators


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)


def _bias(conv: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias


class DenseBlock(nn.Module):
    """Three 3x3 convolutions that each read all before them, a 1x1 that fuses, a residual.

    [N, M, H, W] -> [N, M, H, W]. Raises ValueError for residual `literal` on backend `fused`.
    """

    def __init__(
        self, width: int, growth: int, residual: str = "output", backend: Backend = "reference"
    ) -> None:
        super().__init__()
        if residual == "literal" and backend == "fused":
            raise ValueError(
                "dense block: backend must be 'reference' with residual 'literal', got 'fused'"
            )
        self.residual = residual
        self.run = operators(backend).dense_block
        self.conv1 = conv3x3(width, growth)
        self.conv2 = conv3x3(width + growth, growth)
        self.conv3 = conv3x3(width + 2 * growth, growth)
        self.fuse = nn.Conv2d(width + 3 * growth, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.residual == "literal":
            out1 = relu(self.conv1(x))
            out2 = relu(self.conv2(torch.cat((x, out1), 1)))
            out3 = relu(self.conv3(torch.cat((x, out1, out2), 1)))
            return self.fuse(torch.cat((x + out3, x, out1, out2), 1))
        convs = (self.conv1, self.conv2, self.conv3, self.fuse)
        return self.run(x, [conv.weight for conv in convs], [_bias(conv) for conv in convs])


class EncoderStep(nn.Module):
    """Dense block, then a 3x3 of stride 2: [N, C, H, W] -> block output, [N, C', H/2, W/2]."""

    def __init__(
        self, width: int, growth: int, below: int, residual: str, backend: Backend
    ) -> None:
        super().__init__()
        self.dense = DenseBlock(width, growth, residual, backend)
        self.down = conv3x3(width, below, stride=2)
        self.run_down = operators(backend).strided_conv

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out = self.dense(x)
        return out, self.run_down(out, self.down.weight, _bias(self.down))


class Upsampling(nn.Module):
    """[N, C', H, W] -> [N, C, 2H, 2W], plus the skip of that shape where there is one.

    Shuffled, channel 4c + 2dy + dx of the 1x1 is channel c of pixel (2y + dy, 2x + dx).
    """

    def __init__(self, below: int, width: int, method: str, backend: Backend = "reference") -> None:
        super().__init__()
        self.method = method
        self.run = operators(backend).upsample
        self.conv: nn.Conv2d | nn.ConvTranspose2d
        if method == "pixel_shuffle":
            self.conv = nn.Conv2d(below, 4 * width, 1)
        elif method == "transposed":
            self.conv = nn.ConvTranspose2d(below, width, 2, stride=2)
        else:
            self.conv = conv3x3(below, width)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        if self.method == "pixel_shuffle":
            return self.run(x, self.conv.weight, _bias(self.conv), skip)
        if self.method == "nearest":
            x = interpolate(x, scale_factor=2, mode="nearest")
        x = self.conv(x)
        return x if skip is None else x + skip


class DecoderStep(nn.Module):
    """Upsampling, the skip where the Choice has it here, then a dense block."""

    def __init__(
        self, below: int, width: int, growth: int, method: str, residual: str, backend: Backend
    ) -> None:
        super().__init__()
        self.up = Upsampling(below, width, method, backend)
        self.dense = DenseBlock(width, growth, residual, backend)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        return self.dense(self.up(x, skip))


class DenoisingNetwork(nn.Module):
    """[N, 3, H, W] -> [N, 3, H, W], values (pixel - 128) / 128; H and W multiples of `config.grid`.

    backend: who computes the convolutions; the weights are the same.
    Raises ValueError for other shapes (`starlight.models.padding` brings any image to the grid) and
    for a config that the backend does not compute, ImportError when the backend is not built.
    """

    def __init__(self, config: DenoiserConfig, backend: Backend = "reference") -> None:
        super().__init__()
        self.config = config
        self.backend = backend
        widths, growths, levels = config.widths, config.growths, range(config.levels)
        residual = config.residual
        self.run_conv3x3 = operators(backend).conv3x3
        self.head = conv3x3(3, widths[0])
        self.encoder = nn.ModuleList(
            EncoderStep(widths[k], growths[k], widths[k + 1], residual, backend) for k in levels
        )
        self.middle = nn.ModuleDict(
            {"dense": DenseBlock(widths[-1], growths[-1], residual, backend)}
        )
        # decoder[k] works at level k and runs after decoder[k + 1].
        self.decoder = nn.ModuleList(
            DecoderStep(widths[k + 1], widths[k], growths[k], config.upsampling, residual, backend)
            for k in levels
        )
        self.second = conv3x3(widths[0], widths[0])
        self.tail = conv3x3(widths[0], 3)
        self._initialise()

    def _initialise(self) -> None:
        """He where a ReLU follows, LeCun elsewhere; small fuse and tail start near identity."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                followed_by_relu = name.rsplit(".", 1)[-1] in ("conv1", "conv2", "conv3")
                nn.init.kaiming_normal_(
                    module.weight, nonlinearity="relu" if followed_by_relu else "linear"
                )
                if name == "tail" or name.endswith("fuse"):
                    with torch.no_grad():
                        module.weight.mul_(0.1)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, image: Tensor) -> Tensor:
        check_input(image, self.config.grid)
        skip = self.config.skip
        head = self._convolve(self.head, image)
        x = head
        held: list[Tensor] = []  # what the decoder adds, let go as soon as it is added
        for step in self.encoder:
            block, x = step(x)
            held.append(x if skip == "module" else block)
        x = self.middle["dense"](x)
        for level in reversed(range(self.config.levels)):
            # `literal` adds the block of the level below, and nothing at the deepest.
            if skip == "module" or (skip == "literal" and len(held) > level + 1):
                x = x + held.pop()
            x = self.decoder[level](x, held.pop() if skip == "post_up" else None)
        x = self._convolve(self.second, x, head)
        noise = self._convolve(self.tail, x)
        return image - noise if self.config.subtraction else noise

    def _convolve(self, conv: nn.Conv2d, x: Tensor, skip: Tensor | None = None) -> Tensor:
        return self.run_conv3x3(x, conv.weight, _bias(conv), skip)


def default_backend(config: DenoiserConfig) -> Backend:
    """`fused` where it is built and computes the config's Choices, else `reference`."""
    return "reference" if config.residual == "literal" else built_backend()


def check_input(image: Tensor, grid: int) -> None:
    if image.ndim != 4 or image.shape[1] != 3:
        raise ValueError(f"denoiser: input must be [N, 3, H, W], got {list(image.shape)}")
    if image.shape[2] % grid or image.shape[3] % grid:
        raise ValueError(
            f"denoiser: height and width must be multiples of {grid}, "
            f"got {image.shape[2]} x {image.shape[3]}"
        )
