"""Does this scene fit this model? What is missing is refused with both numbers and the option that resolves it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from geoseg.errors import InputError
from geoseg.models.card import ModelCard
from geoseg.models.find import list_models, load_card
from geoseg.raster.normalize import Normalization
from geoseg.raster.reader import SceneReader

log = logging.getLogger(__name__)
GSD_SLACK = 1.02  # a nominal 0.2 m is rarely exactly 0.2 m
USUAL_BANDS = ("red", "green", "blue", "nir")  # their order in files of three or four that do not tell


def _missing(card: ModelCard, available: Sequence[str]) -> str:
    """That the model needs other bands, and what to do; empty where it does not."""
    needed = [band.name for band in card.bands if not band.optional]
    missing = [name for name in needed if name not in available]
    if not missing:
        return ""
    told = f"Model {card.name} needs band {', '.join(missing)}; the scene has {', '.join(available)}."
    usual = {name: str(number) for number, name in enumerate(USUAL_BANDS[: len(available)], 1)}
    numbers = usual if set(needed) <= set(usual) else dict.fromkeys(needed, "N")
    example = ",".join(f"{name}={number}" for name, number in numbers.items())
    what = "" if numbers is usual else ", N being its number, or its file"
    return f"{told} Say which band is which, as in --bands {example}{what}."


def used_bands(card: ModelCard, available: Sequence[str]) -> tuple[str, ...]:
    """The scene's bands that the network sees, in the card's order.

    Raises:
        InputError: a band is missing that is not optional.
    """
    if told := _missing(card, available):
        raise InputError(told)
    return tuple(band.name for band in card.bands if band.name in available)


def normalization_for(
    card: ModelCard, available: Sequence[str], dtype: str, *, scale: float | None = None, offset: float | None = None
) -> Normalization:
    """How the scene's stored numbers become what the network was trained on.

    Args:
        card: the model's.
        available: band names of the scene.
        dtype: of its pixels.
        scale: of the scene, where it is known; the card's for that dtype otherwise, with its offset.
        offset: of the scene, where it is known.

    Raises:
        InputError: the card does not know the dtype and no scale is given.
    """
    if scale is None and dtype not in card.scales:
        known = ", ".join(f"{name} x {factor:g}" for name, factor in card.scales.items())
        raise InputError(
            f"The scene's pixels are {dtype}; model {card.name} knows {known}. "
            f"Give --scale S (and --offset O), so that pixel * S + O is in the same unit."
        )
    usual = card.offsets.get(dtype, 0.0) if scale is None else 0.0
    return Normalization(
        scale=card.scales.get(dtype, 1.0) if scale is None else scale,
        offset=usual if offset is None else offset,
        mean=tuple(band.mean for band in card.bands),
        std=tuple(band.std for band in card.bands),
        present=tuple(band.name in available for band in card.bands),
    )


def check_gsd(card: ModelCard, gsd_m: float | None) -> None:
    """Refuse a resolution that the model was not made for; a scene without one is taken at the card's own.

    Raises:
        InputError: outside the card's range.
    """
    low, high = card.gsd_range_m
    if gsd_m is None:
        log.warning(
            "The scene has no known resolution; %s assumes %g m. Say --gsd M if it differs.", card.name, card.gsd_m
        )
    elif not low / GSD_SLACK <= gsd_m <= high * GSD_SLACK:
        raise InputError(
            f"The scene has pixels of {gsd_m:.3g} m; model {card.name} is good for {low:g} to {high:g} m. "
            f"Give --resample to work at {card.gsd_m:g} m, or --gsd M if the scene's georeference is wrong."
        )


def fitting_models(reader: SceneReader) -> dict[str, str]:
    """For each known model an empty text where it fits the scene as it is, else the reason why not."""
    return {name: _reason(load_card(path), reader) for name, path in list_models().items()}


def _reason(card: ModelCard, reader: SceneReader) -> str:
    try:
        normalization_for(card, used_bands(card, reader.bands), reader.dtype, scale=reader.scale, offset=reader.offset)
        if reader.gsd_m is not None:
            check_gsd(card, reader.gsd_m)
    except InputError as error:
        return str(error)
    return ""
