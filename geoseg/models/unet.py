"""U-Net (Ronneberger et al. 2015) on any encoder of timm or segmentation-models-pytorch.

The parts are the library's; put together here because its own U-Net keeps unused encoder stages, always decodes to full
resolution, and upsamples with `align_corners=True`, which makes the answer depend on where in a chip a pixel lies.
"""

from __future__ import annotations

from collections.abc import Sequence

from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import nn

from geoseg.errors import InputError
from geoseg.models.encoder_decoder import EncoderDecoder, build_encoder


class UNet(EncoderDecoder):
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
        check_blocks(depth, decoder_channels)
        features = build_encoder(encoder, bands, depth)
        super().__init__(
            features,
            UnetDecoder(features.out_channels, decoder_channels, n_blocks=len(decoder_channels)),
            nn.Conv2d(decoder_channels[-1], classes, kernel_size=3, padding=1),
            upsampling=2 ** (depth - len(decoder_channels)),
            output_stride=2**depth,
        )


def check_blocks(depth: int, decoder_channels: Sequence[int]) -> None:
    """Check that the decoder does not go beyond the resolution of the chip.

    Raises:
        InputError: it has no block, or more than the encoder has stages.
    """
    blocks = len(decoder_channels)
    if not 1 <= blocks <= depth:
        raise InputError(f"A U-Net of depth {depth} has 1 to {depth} decoder blocks, not {blocks}.")
