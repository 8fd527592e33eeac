"""A small network in the manner of Segment Anything (Kirillov et al. 2023, arXiv:2304.02643): prompts to masks.

A chip is embedded once. Prompts (points, a box, an earlier mask) are cheap: their tokens and the embedding look at each
other in a two-way transformer, and three candidate masks come out, each with the IoU that the network expects of it.
Unlike the original the encoder is a U-Net, whose finer features join where masks are upsampled; prompts are also drawn
as maps beside the earlier mask, as in Sofiiuk et al. 2021 (arXiv:2102.06583), and their tokens begin with what the
embedding looks like at them. All three help where there are few labels and little time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from geoseg.errors import InputError
from geoseg.models.encoder_decoder import build_encoder
from geoseg.models.unet import check_blocks

CANDIDATES = 3
PADDING, NEGATIVE, POSITIVE = -1, 0, 1  # labels of points
DISK = 5.0  # pixels of a chip; radius of a point as it is drawn
FREQUENCIES = (1.0, 4.0)  # of positions, in periods per half side: near and far
BLOCKS = 3
RARE = -3.0  # logit of an untrained network: most pixels are of no object


class Embedding(NamedTuple):
    """What is computed once per chip.

    Attributes:
        coarse: (chip, channel, height / 8, width / 8).
        fine: (chip, channel, height / 4, width / 4).
        finest: (chip, channel, height / 2, width / 2).
    """

    coarse: Tensor
    fine: Tensor
    finest: Tensor


class Prompts(NamedTuple):
    """What is asked of chips, one object each.

    Attributes:
        points: (prompt, point, 2) row and column in pixels, 0 at the chip's upper-left corner.
        labels: (prompt, point) POSITIVE, NEGATIVE or PADDING.
        boxes: (prompt, 4) top, left, bottom, right in pixels; NaN where there is none.
        earlier: (prompt, 1, height / 2, width / 2) logits of an earlier mask; 0 where there is none.
    """

    points: Tensor
    labels: Tensor
    boxes: Tensor
    earlier: Tensor


class Masks(NamedTuple):
    """What is answered.

    Attributes:
        logits: (prompt, candidate, height / 2, width / 2).
        scores: (prompt, candidate), the IoU that is expected.
    """

    logits: Tensor
    scores: Tensor


class Promptable(nn.Module):
    """Encoder, prompt encoder, mask decoder.

    Args:
        bands: channels of the input.
        classes: of the card's legend; masks have none.
        encoder: name of an encoder; `tu-` takes it from timm.
        depth: number of its stages, each halving the resolution.
        decoder_channels: of the U-Net's three blocks, at strides 8, 4 and 2.
        width: channels of tokens and of the embedding, a multiple of 4 and of `heads`.
        layers: of the two-way transformer.
        heads: of its attention.
        fine_channels: of the finer features that masks are made of, at strides 4 and 2.
    """

    position_independent = False

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        encoder: str = "tu-resnet18",
        depth: int = 4,
        decoder_channels: Sequence[int] = (128, 64, 32),
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        fine_channels: Sequence[int] = (32, 16),
    ) -> None:
        super().__init__()
        check_blocks(depth, decoder_channels)
        if depth != BLOCKS + 1 or len(decoder_channels) != BLOCKS or len(fine_channels) != BLOCKS - 1:
            raise InputError(f"A promptable network has depth {BLOCKS + 1} and {BLOCKS} decoder blocks.")
        if width % (4 * heads):
            raise InputError(f"Its width is a multiple of 4 times its {heads} heads; {width} is not.")
        self.output_stride = 2**depth
        self.encoder = build_encoder(encoder, bands, depth)
        self.decoder = UnetDecoder(self.encoder.out_channels, decoder_channels, n_blocks=BLOCKS)
        kept = (width, *fine_channels)
        self.necks = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(decoder_channels, kept, strict=True))
        self.norm = LayerNorm2d(width)
        self.prompts = PromptEncoder(width, sum(kept))
        self.masks = MaskDecoder(width, layers, heads, fine_channels)

    def forward(self, chips: Tensor, prompts: Prompts) -> Masks:
        """Masks of prompts, as many for each of the chips (chip, band, height, width), in their order."""
        return self.decode(self.embed(chips), prompts)

    def embed(self, chips: Tensor) -> Embedding:
        """What masks of any prompts are made of; chips normalized (chip, band, height, width)."""
        features = self.encoder(chips)[1:][::-1]  # deepest first
        deepest, skips = features[0], features[1:]
        found = []
        for block, skip, neck in zip(self.decoder.blocks, skips, self.necks, strict=True):
            side = [2 * length for length in deepest.shape[2:]]
            deepest = block(deepest, side[0], side[1], skip_connection=skip)
            found.append(neck(deepest))
        return Embedding(self.norm(found[0]), found[1], found[2])

    def decode(self, embedding: Embedding, prompts: Prompts) -> Masks:
        """Candidates of each prompt."""
        each = len(prompts.points) // len(embedding.coarse)
        own = Embedding(*(part[:, None].expand(-1, each, -1, -1, -1).flatten(0, 1) for part in embedding))
        height, width = (8 * length for length in own.coarse.shape[2:])
        tokens = self.prompts.tokens(prompts, own, height, width)
        positions = self.prompts.grid(height // 8, width // 8)
        own = own._replace(coarse=own.coarse + self.prompts.maps(prompts, height, width))
        masks: Masks = self.masks(own, tokens, positions)
        return masks


class PromptEncoder(nn.Module):
    """Points and boxes to tokens; points, boxes and earlier masks to maps."""

    def __init__(self, width: int, seen: int) -> None:
        super().__init__()
        self.look = nn.Linear(seen, width)
        scales = torch.tensor(FREQUENCIES).repeat_interleave(width // 4)
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.randn(2, width // 2) * scales)
        self.kinds = nn.Embedding(5, width)  # padding, negative, positive, upper-left corner, lower-right corner
        self.drawn = nn.Sequential(
            nn.Conv2d(4, 16, kernel_size=2, stride=2),
            LayerNorm2d(16),
            nn.GELU(),
            nn.Conv2d(16, 48, kernel_size=2, stride=2),
            LayerNorm2d(48),
            nn.GELU(),
            nn.Conv2d(48, width, kernel_size=1),
        )

    def positions(self, places: Tensor) -> Tensor:
        """Fourier features (..., width) of places (..., 2) in 0..1 of a chip (Tancik et al. 2020)."""
        angles = (2 * places - 1) @ self.frequencies * (2 * math.pi)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def grid(self, height: int, width: int) -> Tensor:
        """Positions (1, height * width, channel) of the centers of an embedding's pixels."""
        steps = (torch.arange(n, device=self.frequencies.device) for n in (height, width))
        rows, cols = ((at + 0.5) / n for at, n in zip(steps, (height, width), strict=True))
        return self.positions(torch.cartesian_prod(rows, cols))[None]

    def tokens(self, prompts: Prompts, embedding: Embedding, height: int, width: int) -> Tensor:
        """(prompt, point + 2, channel): the points, then the corners of the box.

        Each knows what the embedding of its chip looks like there, those of a box what it looks like in its middle.
        """
        size = prompts.points.new_tensor([height, width])
        has_box = ~prompts.boxes.isnan().any(1, keepdim=True)
        corners = prompts.boxes.nan_to_num().reshape(-1, 2, 2)
        places = torch.cat([prompts.points, corners], 1) / size
        own = torch.tensor([3, 4], device=places.device).expand(len(places), 2)
        kinds = torch.cat([prompts.labels.long() + 1, torch.where(has_box, own, 0)], 1)
        known = (kinds > 0)[..., None]
        middle = corners.mean(1, keepdim=True).expand(-1, 2, -1)
        seen = _sampled(embedding, torch.cat([prompts.points, middle], 1) / size)
        tokens: Tensor = (self.positions(places) + self.look(seen)) * known + self.kinds(kinds)
        return tokens

    def maps(self, prompts: Prompts, height: int, width: int) -> Tensor:
        """(prompt, channel, height / 8, width / 8) of the prompts as they are drawn."""
        drawn = torch.cat([prompts.earlier.clamp(-10, 10) / 5, _drawn(prompts, height // 2, width // 2)], 1)
        maps: Tensor = self.drawn(drawn)
        return maps


class MaskDecoder(nn.Module):
    """A two-way transformer, and masks as products of a token's weights with the upsampled embedding."""

    def __init__(self, width: int, layers: int, heads: int, fine_channels: Sequence[int]) -> None:
        super().__init__()
        fine, finest = fine_channels
        self.own = nn.Embedding(1 + CANDIDATES, width)
        self.layers = nn.ModuleList(TwoWay(width, heads) for _ in range(layers))
        self.last = Attention(width, heads)
        self.norm = nn.LayerNorm(width)
        self.up, self.up_norm = nn.ConvTranspose2d(width, fine, 2, stride=2), LayerNorm2d(fine)
        self.up_again = nn.ConvTranspose2d(fine, finest, 2, stride=2)
        self.act = nn.ReLU()
        self.weights = nn.ModuleList(_mlp(width, width, finest + 1) for _ in range(CANDIDATES))
        self.score = _mlp(width, width, CANDIDATES)
        for mlp in self.weights:
            nn.init.constant_(mlp[-1].bias[-1:], RARE)  # type: ignore[index]

    def forward(self, embedding: Embedding, prompts: Tensor, positions: Tensor) -> Masks:
        """Candidates from the embedding of each prompt's chip, tokens (prompt, token, channel) and positions."""
        count, _, rows, cols = embedding.coarse.shape
        asked = torch.cat([self.own.weight.expand(count, -1, -1), prompts], 1)
        tokens, pixels = asked, embedding.coarse.flatten(2).transpose(1, 2)  # (prompt, pixel, channel)
        for layer in self.layers:
            tokens, pixels = layer(tokens, pixels, asked, positions)
        tokens = self.norm(tokens + self.last(tokens + asked, pixels + positions, pixels))
        grid = pixels.transpose(1, 2).reshape(count, -1, rows, cols)
        upsampled = self.act(self.up_norm(self.up(grid) + embedding.fine))
        upsampled = self.act(self.up_again(upsampled) + embedding.finest)
        weights = torch.stack([mlp(tokens[:, 1 + i]) for i, mlp in enumerate(self.weights)], 1)
        logits = weights[..., :-1] @ upsampled.flatten(2) + weights[..., -1:]
        return Masks(logits.unflatten(2, upsampled.shape[2:]), self.score(tokens[:, 0]).sigmoid())


class TwoWay(nn.Module):
    """Tokens look at each other, then at pixels; pixels look at tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.among, self.at_pixels, self.at_tokens = (Attention(width, heads) for _ in range(3))
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))

    def forward(self, tokens: Tensor, pixels: Tensor, asked: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and pixels (prompt, token or pixel, channel); what was asked and positions join the keys again."""
        tokens = self.norms[0](tokens + self.among(tokens + asked, tokens + asked, tokens))
        tokens = self.norms[1](tokens + self.at_pixels(tokens + asked, pixels + positions, pixels))
        tokens = self.norms[2](tokens + self.mlp(tokens))
        pixels = self.norms[3](pixels + self.at_tokens(pixels + positions, tokens + asked, tokens))
        return tokens, pixels


class Attention(nn.Module):
    """Attention at half the channels; its tokens are few, so that plain products are the fastest way."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width // 2) for _ in range(3))
        self.out = nn.Linear(width // 2, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(prompt, token, channel) each."""
        parts = (layer(x) for layer, x in zip((self.query, self.key, self.value), (query, key, value), strict=True))
        own, other, told = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        share = (own @ other.transpose(2, 3) * own.shape[3] ** -0.5).softmax(3)
        found: Tensor = self.out((share @ told).transpose(1, 2).flatten(2))
        return found


def no_mask(count: int, chip: int) -> Tensor:
    """An earlier mask for prompts that have none."""
    return torch.zeros(count, 1, chip // 2, chip // 2)


def _sampled(embedding: Embedding, places: Tensor) -> Tensor:
    """(prompt, point, channel) of all features at places (prompt, point, 2) in 0..1 of each prompt's chip."""
    grid = (2 * places - 1).flip(-1)[:, :, None]
    parts = (grid_sample(part.float(), grid, align_corners=False, padding_mode="border") for part in embedding)
    return torch.cat([part[..., 0] for part in parts], 1).transpose(1, 2)


def _drawn(prompts: Prompts, height: int, width: int) -> Tensor:
    """(prompt, 3, height, width) at half the chip's size: disks of positive and negative points, and boxes."""
    device = prompts.points.device
    rows = (torch.arange(height, device=device) * 2 + 1.0)[:, None]
    cols = (torch.arange(width, device=device) * 2 + 1.0)[None, :]
    row, col = (prompts.points[..., axis, None, None] for axis in (0, 1))
    near = (1 - ((rows - row) ** 2 + (cols - col) ** 2) / DISK**2).clamp(min=0)  # (prompt, point, height, width)
    maps = [(near * (prompts.labels == kind)[..., None, None]).amax(1) for kind in (POSITIVE, NEGATIVE)]
    top, left, bottom, right = (side[:, None, None] for side in prompts.boxes.unbind(1))
    inside = (rows >= top) & (rows <= bottom) & (cols >= left) & (cols <= right)  # never within NaN
    return torch.stack([*maps, inside.float()], 1)


def _mlp(inner: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inner, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, out)
    )
