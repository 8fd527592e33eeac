"""Siamese U-Net for two dates (FC-Siam-conc, FC-Siam-diff: Caye Daudt, Le Saux & Boulch 2018, arXiv:1810.08462)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import Tensor, nn

from geoseg.errors import InputError
from geoseg.models.encoder_decoder import EncoderDecoder, build_encoder, upsample
from geoseg.models.unet import check_blocks

DATES = 2


class SiameseUNet(EncoderDecoder):
    """One encoder looks at both dates; the decoder sees its features of both at every scale.

    Args:
        bands: channels of the input: those of the first date, then as many of the second.
        classes: channels of the output.
        encoder: name of an encoder.
        depth: number of encoder stages, each halving the resolution.
        decoder_channels: one per decoder block; with fewer than `depth`, the logits are upsampled the rest of the way.
        merge: `concat` puts the features of both dates side by side, `difference` takes how far they are apart.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        encoder: str = "tu-resnet18",
        depth: int = 4,
        decoder_channels: Sequence[int] = (128, 64, 32),
        merge: Literal["concat", "difference"] = "concat",
    ) -> None:
        if bands % DATES:
            raise InputError(f"A Siamese network sees as many bands of the second date as of the first, not {bands}.")
        if merge not in ("concat", "difference"):
            raise InputError(f"The features of two dates are merged by concat or difference, not {merge!r}.")
        check_blocks(depth, decoder_channels)
        features = build_encoder(encoder, bands // DATES, depth)
        times = DATES if merge == "concat" else 1
        super().__init__(
            features,
            UnetDecoder([times * own for own in features.out_channels], decoder_channels, len(decoder_channels)),
            nn.Conv2d(decoder_channels[-1], classes, kernel_size=3, padding=1),
            upsampling=2 ** (depth - len(decoder_channels)),
            output_stride=2**depth,
        )
        self.merge, self.bands = merge, bands // DATES

    def forward(self, chips: Tensor) -> Tensor:
        """Logits (chip, class, height, width) of normalized chips (chip, band, height, width)."""
        pairs = zip(self.encoder(chips[:, : self.bands]), self.encoder(chips[:, self.bands :]), strict=True)
        if self.merge == "concat":
            merged = [torch.cat(pair, 1) for pair in pairs]
        else:
            merged = [(before - after).abs() for before, after in pairs]
        return upsample(self.head(self.decoder(merged)), self.upsampling)
