"""Attention U-Net (Oktay et al. 2018, arXiv:1804.03999): what is deeper tells which parts of a skip matter.

Encoder and decoder blocks are the library's; it has no attention gates.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoderBlock
from torch import Tensor, nn

from geoseg.models.encoder_decoder import EncoderDecoder, build_encoder, upsample
from geoseg.models.unet import check_blocks


class AttentionUNet(EncoderDecoder):
    """A U-Net with an attention gate on each skip.

    Args:
        bands: channels of the input.
        classes: channels of the output.
        encoder: name of an encoder.
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
            _GatedDecoder(features.out_channels, decoder_channels),
            nn.Conv2d(decoder_channels[-1], classes, kernel_size=3, padding=1),
            upsampling=2 ** (depth - len(decoder_channels)),
            output_stride=2**depth,
        )


class _GatedDecoder(nn.Module):
    def __init__(self, encoder_channels: Sequence[int], decoder_channels: Sequence[int]) -> None:
        super().__init__()
        deepest, *skips = encoder_channels[:0:-1]  # the chip itself is no skip
        inputs = [deepest, *decoder_channels[:-1]]
        self.gates = nn.ModuleList()
        self.blocks = nn.ModuleList()
        for given, skip, out in zip_longest(inputs, skips[: len(inputs)], decoder_channels, fillvalue=0):
            self.gates.append(AttentionGate(skip, given) if skip else nn.Identity())  # some encoders skip a scale
            self.blocks.append(UnetDecoderBlock(given, skip, out))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        decoded, *skips = features[:0:-1]
        scales = features[-2::-1]
        for gate, block, skip, scale in zip_longest(self.gates, self.blocks, skips, scales):
            if block is None:
                break
            gated = gate(skip, decoded) if isinstance(gate, AttentionGate) else None
            decoded = block(decoded, *scale.shape[2:], gated)
        return decoded


class AttentionGate(nn.Module):
    """Additive attention: features times a factor between 0 and 1 for each pixel.

    Args:
        channels: of the features that are gated.
        gating: channels of the features, half as large, that decide.
    """

    def __init__(self, channels: int, gating: int) -> None:
        super().__init__()
        between = max(1, channels // 2)
        self.features = nn.Conv2d(channels, between, kernel_size=2, stride=2, bias=False)
        self.gating = nn.Conv2d(gating, between, kernel_size=1)
        self.factor = nn.Sequential(nn.ReLU(), nn.Conv2d(between, 1, kernel_size=1), nn.Sigmoid())
        self.out = nn.Sequential(nn.Conv2d(channels, channels, kernel_size=1), nn.BatchNorm2d(channels))

    def forward(self, features: Tensor, gating: Tensor) -> Tensor:
        """Features (chip, channel, height, width), gated by (chip, gating, height / 2, width / 2)."""
        factor = self.factor(self.features(features) + self.gating(gating))
        gated: Tensor = self.out(features * upsample(factor, 2))
        return gated
