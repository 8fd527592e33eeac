"""What most architectures are: an encoder, a decoder, a head, and the logits upsampled to the size of the chip."""

from __future__ import annotations

import re
from typing import Any

from segmentation_models_pytorch.encoders import get_encoder
from torch import Tensor, nn
from torch.nn.functional import interpolate

from geoseg.errors import InputError

PLAIN = re.compile(r"[\w.-]+")


class EncoderDecoder(nn.Module):
    """Networks that differ in their decoder.

    Args:
        encoder: of the library; it returns a list of features, each half as large as the one before.
        decoder: from those features to one.
        head: from the decoder's channels to the classes.
        upsampling: how much smaller the decoder's features are than the chip.
        output_stride: how much smaller the encoder's deepest features are.

    Attributes:
        position_independent: whether the answer does not depend on where in a chip a pixel lies, given enough halo and
            an encoder of convolutions. Encoders that look at the whole chip (squeeze-excite, attention) break it:
            `geoseg.models.receptive.is_position_independent` measures a network with its encoder.
    """

    position_independent = True

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, head: nn.Module, *, upsampling: int, output_stride: int
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.head = encoder, decoder, head
        self.upsampling, self.output_stride = upsampling, output_stride

    def forward(self, chips: Tensor) -> Tensor:
        """Logits (chip, class, height, width) of normalized chips (chip, band, height, width)."""
        features = self.decoder(self.encoder(chips))
        return upsample(self.head(features), self.upsampling)


def build_encoder(name: str, bands: int, depth: int) -> Any:
    """An encoder of segmentation-models-pytorch, or with `tu-` one of timm, with the library's initial weights.

    Args:
        name: of the library's.
        bands: channels of its input.
        depth: number of stages, each halving the resolution.

    Returns:
        A module from chips to a list of features, the chips themselves first; `out_channels` says how many each has.

    Raises:
        InputError: the name leads elsewhere.
    """
    check_encoder(name)
    return get_encoder(name, in_channels=bands, depth=depth, weights=None)


def check_encoder(name: str) -> None:
    """Check that an encoder is one of the library's: timm would also ask a hub, or read a folder, that a card names.

    Raises:
        InputError: it is not.
    """
    if not PLAIN.fullmatch(name):
        raise InputError(f"Encoder {name!r} is no plain name; give one of the library's, such as tu-resnet18.")


def upsample(features: Tensor, factor: int) -> Tensor:
    """Bilinear and independent of position: half-pixel centers, a fixed factor."""
    if factor == 1:
        return features
    return interpolate(features, scale_factor=float(factor), mode="bilinear", align_corners=False)
