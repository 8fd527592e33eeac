"""Several networks, or several views of one, as one model: their probabilities are averaged at every pixel.

Averaging goes on inside the chip, before chips are joined, so that an ensemble is as free of seams as its members.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from math import lcm

import torch
from torch import Tensor, nn

from geoseg.errors import InputError
from geoseg.models.architectures import DETECTORS
from geoseg.models.bundle import Model, load_model
from geoseg.models.card import Architecture, ModelCard
from geoseg.models.onnx import OnnxNetwork

Source = Model | str | os.PathLike[str]
VIEWS = (1, 4, 8)
_LEAST = 1e-12  # probability whose logarithm is taken instead of that of 0


def ensemble(models: Source | Sequence[Source], *, views: int = 1) -> Model:
    """One model that averages the probabilities of several, each seen in several views.

    Args:
        models: bundles of one legend and the same bands, by name, path or loaded; one alone is enough.
        views: 1 as it is; 4 with its flips; 8 with its quarter turns too (the dihedral group: test-time augmentation).

    Returns:
        A model to be run as any other; it costs as much as all members and views together.

    Raises:
        InputError: the models do not fit each other, or are ONNX graphs.
    """
    given = [models] if isinstance(models, Model | str | os.PathLike) else models
    members = [load_model(model) for model in given]
    for member in members:
        member.card.check_has_classes()
    if views not in VIEWS:
        raise InputError(f"Views are {', '.join(map(str, VIEWS))}, not {views}.")
    if not members:
        raise InputError("An ensemble has one model or more; none was given.")
    if len(members) == 1 and views == 1:
        return members[0]
    card = _card(members, views)
    return Model(_Average(members, views).eval(), card)


class _Average(nn.Module):
    """Logarithms of mean probabilities, which are logits again."""

    def __init__(self, models: Sequence[Model], views: int) -> None:
        super().__init__()
        first = models[0].card
        self.members = nn.ModuleList([_Member(model, first) for model in models])
        self.views = views

    def forward(self, chips: Tensor) -> Tensor:
        total: Tensor | None = None
        for member in self.members:
            for turned in (False, True)[: 1 + (self.views == 8)]:
                for flipped in ([], [-1], [-2], [-2, -1])[: min(self.views, 4)]:
                    view = chips.transpose(-2, -1) if turned else chips
                    view = view.flip(flipped) if flipped else view
                    seen = member(view)
                    seen = seen.flip(flipped) if flipped else seen
                    seen = seen.transpose(-2, -1) if turned else seen
                    total = seen if total is None else total + seen
        assert total is not None
        mean: Tensor = total / (len(self.members) * self.views)
        return mean.clamp(min=_LEAST).log()


class _Member(nn.Module):
    """Probabilities of one model, from chips that are normalized for another."""

    gain: Tensor
    shift: Tensor

    def __init__(self, model: Model, given: ModelCard) -> None:
        super().__init__()
        self.network, self.temperature = model.network, model.card.temperature
        names = [band.name for band in given.bands]
        self.order = [names.index(band.name) for band in model.card.bands]
        pairs = [(given.bands[index], own) for index, own in zip(self.order, model.card.bands, strict=True)]
        self.is_as_given = model.card.bands == given.bands
        self.register_buffer("gain", torch.tensor([had.std / own.std for had, own in pairs])[:, None, None])
        self.register_buffer(
            "shift", torch.tensor([(had.mean - own.mean) / own.std for had, own in pairs])[:, None, None]
        )

    def forward(self, chips: Tensor) -> Tensor:
        if not self.is_as_given:
            chips = chips[:, self.order] * self.gain + self.shift
        logits: Tensor = self.network(chips)
        return (logits.float() / self.temperature).softmax(1)


def _card(models: Sequence[Model], views: int) -> ModelCard:
    """What holds for all: the common resolutions, the largest halo, the strictest stride."""
    cards = [model.card for model in models]
    first = cards[0]
    for model in models:
        _check_fits(model, first)
    low, high = max(card.gsd_range_m[0] for card in cards), min(card.gsd_range_m[1] for card in cards)
    if low > high:
        ranges = ", ".join(f"{c.name} {c.gsd_range_m[0]:g} to {c.gsd_range_m[1]:g} m" for c in cards)
        raise InputError(f"No ground sample distance suits all models: {ranges}.")
    stride = lcm(*(card.output_stride for card in cards))
    halo = _rounded_up(max(card.halo_px for card in cards), stride)
    digests = " ".join(model.digest for model in models)
    return first.model_copy(
        update={
            "name": "-".join(card.name for card in cards)[:64],
            "version": "-".join(card.version for card in cards),
            "description": f"Mean of {', '.join(card.name for card in cards)}" + f", {views} views" * (views > 1) + ".",
            "license": " AND ".join(dict.fromkeys(card.license for card in cards)),
            "architecture": Architecture(name="ensemble", args={"members": digests, "views": views}),
            "gsd_m": min(max(first.gsd_m, low), high),
            "gsd_range_m": (low, high),
            "output_stride": stride,
            "receptive_field_px": max(card.receptive_field_px for card in cards),
            "halo_px": halo,
            "chip_px": max(_rounded_up(max(card.chip_px for card in cards), stride), 2 * halo + stride),
            "ramp_px": max(card.ramp_px for card in cards),
            "position_independent": all(card.position_independent for card in cards),
            "training_data": tuple(dict.fromkeys(data for card in cards for data in card.training_data)),
            "scores": {},
            "temperature": 1.0,
            "calibration": {},
            "weights_sha256": None,
        }
    )


def _check_fits(model: Model, first: ModelCard) -> None:
    card = model.card
    if isinstance(model.network, OnnxNetwork):
        raise InputError(f"{card.name} is an ONNX graph, which takes no part in ensembles and has one view only.")
    if card.architecture.name in DETECTORS:
        raise InputError(f"{card.name} sees objects, which cannot be averaged; give it alone, with one view.")
    if card.fixed_chip and card.chip_px != first.chip_px:
        raise InputError(f"{card.name} takes chips of {card.chip_px} px only, {first.name} of {first.chip_px} px.")
    _check_legends(card, first)
    for what, own, other in (
        ("scales", _told(card.scales), _told(first.scales)),
        ("offsets", _told(card.offsets), _told(first.offsets)),
        ("pool_to_m", card.pool_to_m, first.pool_to_m),
        ("bands", _bands(card), _bands(first)),
    ):
        if own != other:
            raise InputError(f"{card.name} and {first.name} differ in their {what}: {own} and {other}.")


def _check_legends(card: ModelCard, first: ModelCard) -> None:
    if card.legend == first.legend:
        return
    own, other = (", ".join(legend.names) for legend in (card.legend, first.legend))
    which = f"{own}; and {other}" if own != other else f"ids, colors, groups or nodata of {own}"
    raise InputError(f"{card.name} and {first.name} differ in their legend: {which}. Give models of one legend.")


def _told(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in sorted(numbers.items())) or "none"


def _bands(card: ModelCard) -> str:
    return ", ".join(sorted(band.name + " (optional)" * band.optional for band in card.bands))


def _rounded_up(length: int, stride: int) -> int:
    return -(-length // stride) * stride
