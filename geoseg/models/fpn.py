"""FPN for segmentation (Kirillov et al. 2019, arXiv:1901.02446), independent of position.

The library's upsamples with `align_corners=True` and normalizes groups of channels over the whole chip; here half-pixel
centers and batch norms take their place. The top-down blocks are the library's.
"""

from __future__ import annotations

from collections.abc import Sequence

from segmentation_models_pytorch.decoders.fpn.decoder import FPNBlock
from torch import Tensor, nn

from geoseg.errors import InputError
from geoseg.models.encoder_decoder import EncoderDecoder, build_encoder, upsample


class FPN(EncoderDecoder):
    """Encoder, feature pyramid, head.

    Args:
        bands: channels of the input.
        classes: channels of the output.
        encoder: name of an encoder.
        depth: number of encoder stages, 3 to 5; the logits are made at a quarter of the resolution.
        pyramid_channels: of each level of the pyramid.
        channels: of the levels when they are added up.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        encoder: str = "tu-resnet18",
        depth: int = 4,
        pyramid_channels: int = 128,
        channels: int = 64,
    ) -> None:
        check_depth("An FPN", depth)
        features = build_encoder(encoder, bands, depth)
        super().__init__(
            features,
            _Pyramid(features.out_channels[2:], pyramid_channels, channels),
            nn.Conv2d(channels, classes, kernel_size=1),
            upsampling=4,
            output_stride=2**depth,
        )


def check_depth(what: str, depth: int) -> None:
    """Check that a decoder which ends at a quarter of the resolution has something to decode.

    Raises:
        InputError: the depth is not 3 to 5.
    """
    if not 3 <= depth <= 5:
        raise InputError(f"{what} has a depth of 3 to 5, not {depth}.")


class _Pyramid(nn.Module):
    """From features at strides 4, 8, ... to one at stride 4."""

    def __init__(self, encoder_channels: Sequence[int], pyramid_channels: int, channels: int) -> None:
        super().__init__()
        *skips, deepest = encoder_channels
        self.deepest = nn.Conv2d(deepest, pyramid_channels, kernel_size=1)
        self.levels = nn.ModuleList([FPNBlock(pyramid_channels, skip) for skip in reversed(skips)])
        self.branches = nn.ModuleList(
            [branch(pyramid_channels, channels, doublings) for doublings in range(len(skips), -1, -1)]
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        *skips, deepest = features[2:]
        level: Tensor = self.deepest(deepest)
        total: Tensor = self.branches[0](level)
        for block, branch, skip in zip(self.levels, list(self.branches)[1:], reversed(skips), strict=True):
            level = block(level, skip)
            total = total + branch(level)
        return total


def branch(given: int, channels: int, doublings: int) -> nn.Sequential:
    """From a level of the pyramid, upsampled by two so many times, to the level at stride 4."""
    steps = max(1, doublings)
    inputs = [given] + [channels] * (steps - 1)
    return nn.Sequential(*(_Step(each, channels, factor=2 if doublings else 1) for each in inputs))


class _Step(nn.Module):
    """Convolution, normalization, ReLU; then upsampled."""

    def __init__(self, given: int, channels: int, *, factor: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(given, channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )
        self.factor = factor

    def forward(self, features: Tensor) -> Tensor:
        return upsample(self.layers(features), self.factor)
