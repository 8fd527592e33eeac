"""UPerNet (Xiao et al. 2018, arXiv:1807.10221): a feature pyramid whose top is pooled over the whole chip.

The decoder is the library's, whose own model would upsample with `align_corners=True`.
"""

from __future__ import annotations

from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
from torch import Tensor, nn

from geoseg.models.encoder_decoder import EncoderDecoder, build_encoder
from geoseg.models.fpn import check_depth


class UPerNet(EncoderDecoder):
    """Encoder, pyramid pooling and feature pyramid, head. Its pooling sees the whole chip.

    Args:
        bands: channels of the input.
        classes: channels of the output.
        encoder: name of an encoder.
        depth: number of encoder stages, 3 to 5; the logits are made at a quarter of the resolution.
        channels: of the pyramid.
    """

    position_independent = False

    def __init__(
        self, bands: int, classes: int, *, encoder: str = "tu-resnet18", depth: int = 5, channels: int = 128
    ) -> None:
        check_depth("A UPerNet", depth)
        features = build_encoder(encoder, bands, depth)
        decoder = UPerNetDecoder(features.out_channels, encoder_depth=depth, decoder_channels=channels)
        for block in decoder.psp.blocks:
            block[0] = PooledCells(block[0].output_size)
        super().__init__(
            features, decoder, nn.Conv2d(channels, classes, kernel_size=1), upsampling=4, output_stride=2**depth
        )


class PooledCells(nn.Module):
    """Means of `side` x `side` cells, as `AdaptiveAvgPool2d`, which is exported for chips of a few sizes only.

    Args:
        side: number of cells along each axis.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, features: Tensor) -> Tensor:
        """Means (chip, channel, side, side) of features (chip, channel, height, width)."""
        line = features[0, 0]
        rows, cols = (self._shares(each.cumsum(0)) for each in (line[:, 0] * 0 + 1, line[0] * 0 + 1))
        return rows @ features @ cols.T

    def _shares(self, numbers: Tensor) -> Tensor:
        """Weights (side, length) of pixels numbered 1 to length; cell i holds those from i / side to (i + 1) / side."""
        length = numbers[-1]
        cells = numbers.new_tensor(range(self.side))[:, None]
        is_in = (numbers > (cells * length / self.side).floor()) & (
            numbers <= ((cells + 1) * length / self.side).ceil()
        )
        shares = is_in.to(numbers.dtype)
        return shares / shares.sum(1, keepdim=True)
