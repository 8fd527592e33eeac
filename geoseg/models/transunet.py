"""TransUNet (Chen et al. 2021, arXiv:2102.04306): a U-Net whose deepest features go through a vision transformer.

Encoder, transformer blocks and decoder are the libraries'; no library puts them together. The published network adds a
learned position to each patch, for chips of one size; here positions are sines and cosines (Vaswani et al. 2017,
arXiv:1706.03762), so that chips may have any size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from geoseg.errors import InputError
from geoseg.models.encoder_decoder import EncoderDecoder, build_encoder
from geoseg.models.unet import check_blocks


class TransUNet(EncoderDecoder):
    """Encoder, transformer, decoder, head. Its attention sees the whole chip.

    Args:
        bands: channels of the input.
        classes: channels of the output.
        encoder: name of an encoder; as published, `tu-resnet50`.
        depth: number of encoder stages, each halving the resolution.
        width: channels of the transformer, a multiple of 4 and of `heads`; as published, 768.
        layers: of the transformer; as published, 12.
        heads: of its attention; as published, 12.
        decoder_channels: one per decoder block; with fewer than `depth`, the logits are upsampled the rest of the way.
    """

    position_independent = False

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        encoder: str = "tu-resnet18",
        depth: int = 4,
        width: int = 256,
        layers: int = 4,
        heads: int = 8,
        decoder_channels: Sequence[int] = (128, 64, 32),
    ) -> None:
        check_blocks(depth, decoder_channels)
        if width % 4 or width % heads:
            raise InputError(f"A TransUNet's width is a multiple of 4 and of its {heads} heads; {width} is not.")
        features = build_encoder(encoder, bands, depth)
        *skips, deepest = features.out_channels
        super().__init__(
            features,
            nn.Sequential(
                _Transformer(deepest, width, layers, heads),
                UnetDecoder([*skips, width], decoder_channels, n_blocks=len(decoder_channels)),
            ),
            nn.Conv2d(decoder_channels[-1], classes, kernel_size=3, padding=1),
            upsampling=2 ** (depth - len(decoder_channels)),
            output_stride=2**depth,
        )


class _Transformer(nn.Module):
    """Replaces the deepest features; each of their pixels is a token."""

    def __init__(self, channels: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, width, kernel_size=1)
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        *skips, deepest = features
        embedded = self.embed(deepest)
        embedded = embedded + positions(embedded)
        tokens = self.norm(self.blocks(embedded.flatten(2).transpose(1, 2)))
        return [*skips, tokens.transpose(1, 2).reshape(embedded.shape)]


def positions(features: Tensor) -> Tensor:
    """Sines and cosines (1, channel, height, width) of rows and columns, for features of that shape and type."""
    quarter = features.shape[1] // 4
    steps = torch.arange(
        quarter, device=features.device, dtype=torch.float32
    )  # whatever the features': angles are long
    frequencies = torch.exp(steps * (-math.log(10_000) / quarter))
    ones = torch.ones_like(features[:1, :1], dtype=torch.float32)
    rows, cols = (ones.cumsum(axis) - 1 for axis in (2, 3))
    angles = torch.cat([each * frequencies[:, None, None] for each in (rows, cols)], dim=1)
    return torch.cat([angles.sin(), angles.cos()], dim=1).to(features.dtype)
