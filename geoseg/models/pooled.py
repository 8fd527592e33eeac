"""A model on scenes finer than it is good at: it sees means of k x k pixels, and answers for every pixel.

Pooling is a layer of the network like any other, so that chips, halos and seams are what they are for all models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad

from geoseg.errors import InputError
from geoseg.models.bundle import Model
from geoseg.models.card import ModelCard
from geoseg.models.onnx import OnnxNetwork

if TYPE_CHECKING:
    from geoseg.models.detector import Seen


def pool_factor(card: ModelCard, gsd_m: float | None) -> int:
    """How many pixels of `gsd_m` metres make one that the model sees, along each axis; 1 where that is not known."""
    if card.pool_to_m is None or gsd_m is None:
        return 1
    return max(1, round(card.pool_to_m / gsd_m))


def pooled(model: Model, factor: int) -> Model:
    """The model on means of `factor` x `factor` pixels; logits are interpolated back, linearly.

    Raises:
        InputError: it is an ONNX graph, which nothing can be put around.
    """
    if factor == 1:
        return model
    if isinstance(model.network, OnnxNetwork):
        raise InputError(f"{model.card.name} is an ONNX graph, which cannot see means of pixels; use --pool 1.")
    card = model.card
    lengths = ("output_stride", "halo_px", "chip_px", "ramp_px")
    update = {name: factor * getattr(card, name) for name in lengths}
    reach = factor * (card.receptive_field_px + 1) + factor - 1  # a pixel's neighbour in the pooled grid, and its cell
    network = _Pooled(model.network, factor, card.output_stride).eval()
    return _PooledModel(network, card.model_copy(update={**update, "receptive_field_px": reach}), model)


@dataclass(frozen=True)
class _PooledModel(Model):
    """As a model, but of the digest of the bundle that it is made of."""

    bundle: Model

    @cached_property
    def digest(self) -> str:
        return self.bundle.digest


class _Pooled(nn.Module):
    def __init__(self, network: nn.Module, factor: int, stride: int) -> None:
        super().__init__()
        self.network, self.factor = network, factor
        self.output_stride = factor * stride

    def forward(self, chips: Tensor) -> Tensor:
        return self._finer(self.network(avg_pool2d(chips, self.factor)))

    def see(self, chips: Tensor, *asked: float) -> Seen:
        """Objects and logits, where the network is a detector."""
        see: Callable[..., Seen] = self.network.see  # type: ignore[assignment]
        seen = see(avg_pool2d(chips, self.factor), *asked)
        logits = None if seen.logits is None else self._finer(seen.logits)
        return type(seen)([one.scaled(self.factor) for one in seen.objects], logits)

    def rehearse(self, chips: Tensor) -> Tensor:
        """As `forward`; of a detector, as its own."""
        return self._finer(getattr(self.network, "rehearse", self.network)(avg_pool2d(chips, self.factor)))

    def _finer(self, logits: Tensor) -> Tensor:
        return _spread(_spread(logits, self.factor, 2), self.factor, 3)


def _spread(coarse: Tensor, factor: int, axis: int) -> Tensor:
    """Linear interpolation along an axis, to `factor` times the length.

    The same numbers wherever a chip begins, which torch's `interpolate` gives for powers of two only: it works out
    every weight from the position.
    """
    length = coarse.shape[axis]
    wide = pad(coarse, (0, 0, 1, 1) if axis == 2 else (1, 1, 0, 0), mode="replicate")
    before, here, after = (wide.narrow(axis, start, length) for start in range(3))
    phases = []
    for phase in range(factor):
        shift = (phase + 0.5) / factor - 0.5
        phases.append(here + (after - here) * shift if shift >= 0 else here + (before - here) * -shift)
    return torch.stack(phases, axis + 1).flatten(axis, axis + 1)
