"""U-Net++ (Zhou et al. 2018, arXiv:1807.10165): decoders of every depth, nested and densely joined.

The parts are the library's; put together here so that the encoder has no stages that nobody uses.
"""

from __future__ import annotations

from collections.abc import Sequence

from segmentation_models_pytorch.decoders.unetplusplus.decoder import UnetPlusPlusDecoder
from torch import nn

from geoseg.errors import InputError
from geoseg.models.encoder_decoder import EncoderDecoder, build_encoder


class UNetPlusPlus(EncoderDecoder):
    """Encoder, nested decoder, head.

    Args:
        bands: channels of the input.
        classes: channels of the output.
        encoder: name of an encoder.
        depth: number of encoder stages, each halving the resolution.
        decoder_channels: one per encoder stage, the deepest first; the last at full resolution.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        encoder: str = "tu-resnet18",
        depth: int = 4,
        decoder_channels: Sequence[int] = (128, 64, 32, 16),
    ) -> None:
        if len(decoder_channels) != depth:
            raise InputError(f"A U-Net++ of depth {depth} has {depth} decoder_channels, not {len(decoder_channels)}.")
        features = build_encoder(encoder, bands, depth)
        super().__init__(
            features,
            UnetPlusPlusDecoder(features.out_channels, decoder_channels, n_blocks=depth),
            nn.Conv2d(decoder_channels[-1], classes, kernel_size=3, padding=1),
            upsampling=1,
            output_stride=2**depth,
        )
