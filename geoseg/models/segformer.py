"""SegFormer (Xie et al. 2021, arXiv:2105.15203): a transformer whose attention spans the chip, and a small decoder.

Encoder and decoder are the library's, whose own model would upsample with `align_corners=True`.
"""

from __future__ import annotations

from segmentation_models_pytorch.decoders.segformer.decoder import SegformerDecoder
from torch import nn

from geoseg.models.encoder_decoder import EncoderDecoder, build_encoder
from geoseg.models.fpn import check_depth


class SegFormer(EncoderDecoder):
    """Encoder, decoder of one layer, head. The attention of its own encoders sees the whole chip.

    Args:
        bands: channels of the input.
        classes: channels of the output.
        encoder: name of an encoder. `tu-pvt_v2_b0` to `_b5` (Wang et al. 2022, arXiv:2106.13797) are kin to those that
            were published with it, `mit_b0` to `mit_b5`, whose code has a licence for non-commercial use only.
        depth: number of encoder stages, 3 to 5; with fewer than 5, these encoders take no chip of less than 32 px. The
            logits are made at a quarter of the resolution.
        channels: of the decoder.
    """

    position_independent = False

    def __init__(
        self, bands: int, classes: int, *, encoder: str = "tu-pvt_v2_b0", depth: int = 5, channels: int = 256
    ) -> None:
        check_depth("A SegFormer", depth)
        features = build_encoder(encoder, bands, depth)
        super().__init__(
            features,
            SegformerDecoder(features.out_channels, encoder_depth=depth, segmentation_channels=channels),
            nn.Conv2d(channels, classes, kernel_size=1),
            upsampling=4,
            output_stride=2**depth,
        )
