"""DeepLabV3+ (Chen et al. 2018) in two forms: as published, and one whose answer does not depend on the chip."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from segmentation_models_pytorch import DeepLabV3Plus
from torch import Tensor, nn
from torch.nn.functional import interpolate

from geoseg.models.encoder_decoder import build_encoder, check_encoder, upsample


class FaithfulDeepLabV3Plus(DeepLabV3Plus):  # type: ignore[misc]
    """The library's: image pooling and `align_corners=True`, so that each pixel depends on its place in the chip."""

    position_independent = False

    def __init__(self, bands: int, classes: int, *, encoder: str = "resnet18", output_stride: int = 16) -> None:
        check_encoder(encoder)
        super().__init__(
            encoder,
            encoder_weights=None,
            encoder_output_stride=output_stride,
            in_channels=bands,
            classes=classes,
        )
        self.output_stride = output_stride


class LocalDeepLabV3Plus(nn.Module):
    """Position-independent: average pooling over a fixed neighbourhood for the image pooling, half-pixel bilinear
    upsampling, and rates small enough for a halo that can be paid.

    Args:
        bands: channels of the input.
        classes: channels of the output.
        encoder: name of an encoder.
        depth: number of encoder stages; the output stride is 2 ** depth.
        rates: dilations of the pyramid's 3 x 3 convolutions, in pixels of the deepest features.
        pool: side of the pooled neighbourhood, odd, in pixels of the deepest features.
        channels: of the pyramid and the decoder.
    """

    position_independent = True

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        encoder: str = "tu-resnet18",
        depth: int = 3,
        rates: Sequence[int] = (2, 4, 6),
        pool: int = 5,
        channels: int = 128,
    ) -> None:
        super().__init__()
        self.encoder = build_encoder(encoder, bands, depth)
        deep, skip = self.encoder.out_channels[-1], self.encoder.out_channels[2]
        self.branches = nn.ModuleList([_conv(deep, channels, 1), *(_conv(deep, channels, 3, rate) for rate in rates)])
        self.pool = nn.Sequential(
            nn.AvgPool2d(pool, stride=1, padding=pool // 2, count_include_pad=False), _conv(deep, channels, 1)
        )
        self.project = _conv(channels * (len(rates) + 2), channels, 1)
        self.skip = _conv(skip, 48, 1)
        self.decode = _conv(channels + 48, channels, 3)
        self.head = nn.Conv2d(channels, classes, 1)
        self.up = 2 ** (depth - 2)
        self.output_stride = 2**depth

    def forward(self, chips: Tensor) -> Tensor:
        """Logits (chip, class, height, width) of normalized chips (chip, band, height, width)."""
        features = self.encoder(chips)
        deep, skip = features[-1], features[2]
        pyramid = torch.cat([*(branch(deep) for branch in self.branches), self.pool(deep)], dim=1)
        decoded = self.decode(torch.cat([upsample(self.project(pyramid), self.up), self.skip(skip)], dim=1))
        return interpolate(self.head(decoded), scale_factor=4.0, mode="bilinear", align_corners=False)


def _conv(channels: int, out: int, kernel: int, rate: int = 1) -> nn.Sequential:
    padding = rate * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(channels, out, kernel, padding=padding, dilation=rate, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(inplace=True),
    )
