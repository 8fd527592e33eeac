"""U-Net (Ronneberger et al. 2015) on any encoder of timm or segmentation-models-pytorch.

The parts are the library's; put together here because its own U-Net keeps unused encoder stages, always decodes to full
resolution, and upsamples with `align_corners=True`, which makes the answer depend on where in a chip a pixel lies.
"""

from __future__ import annotations

from collections.abc import Sequence

from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from segmentation_models_pytorch.encoders import get_encoder
from torch import Tensor, nn
from torch.nn.functional import interpolate

from geoseg.errors import InputError


class UNet(nn.Module):
    """Encoder, decoder, head.

    Args:
        bands: channels of the input.
        classes: channels of the output.
        encoder: name of an encoder; `tu-` takes it from timm without its unused stages.
        depth: number of encoder stages, each halving the resolution.
        decoder_channels: one per decoder block; with fewer than `depth`, the logits are upsampled the rest of the way.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        encoder: str = "tu-resnet18",
        depth: int = 4,
        decoder_channels: Sequence[int] = (128, 64, 32),
    ) -> None:
        super().__init__()
        blocks = len(decoder_channels)
        if not 1 <= blocks <= depth:
            raise InputError(f"A U-Net of depth {depth} has 1 to {depth} decoder blocks, not {blocks}.")
        self.encoder = get_encoder(encoder, in_channels=bands, depth=depth, weights=None)
        self.decoder = UnetDecoder(self.encoder.out_channels, decoder_channels, n_blocks=blocks)
        self.head = nn.Conv2d(decoder_channels[-1], classes, kernel_size=3, padding=1)
        self.upsampling = 2 ** (depth - blocks)
        self.output_stride = 2**depth

    def forward(self, chips: Tensor) -> Tensor:
        """Logits (chip, class, height, width) of normalized chips (chip, band, height, width)."""
        features = self.decoder(self.encoder(chips))
        return upsample(self.head(features), self.upsampling)


def upsample(logits: Tensor, factor: int) -> Tensor:
    """Bilinear and independent of position: half-pixel centers, a fixed factor."""
    if factor == 1:
        return logits
    return interpolate(logits, scale_factor=float(factor), mode="bilinear", align_corners=False)
