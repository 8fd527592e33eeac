"""From trained weights to a bundle: how far the network looks and how good it is are measured and put on its card."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import ChipGrid, Window
from geoseg.inference.fit import normalization_for
from geoseg.inference.plan import little_waste
from geoseg.inference.predictor import Backend, Predictor
from geoseg.inference.segment import Segmenter
from geoseg.models import Model, load_model, save_model
from geoseg.models.receptive import receptive_field, smallest_halo
from geoseg.raster.normalize import Normalization
from geoseg.raster.reader import Pixels
from geoseg.training.calibrate import Sample, calibrate
from geoseg.training.evaluate import Confusion
from geoseg.training.samples import ArrayScene

log = logging.getLogger(__name__)
CORE = 256  # pixels of the chips on which the halo is measured
SAMPLED = 2000  # pixels of each block that the temperature is fitted to

Coarse = Callable[[NDArray[np.integer]], NDArray[np.int16]]


def publish(
    model: Model,
    folder: Path,
    *,
    places: Mapping[str, Sequence[ArrayScene]],
    names: Sequence[str],
    coarse: Coarse,
    halo_chips: int = 24,
) -> Model:
    """Write a bundle whose receptive field, halo and held-out scores are measured on what is stored.

    Args:
        model: trained network and a card whose measured fields are still provisional.
        folder: of the bundle.
        places: scenes not trained on, by place.
        names: classes that scores are given for.
        coarse: index in `names` of label codes and of channels; negative where unknown.
        halo_chips: number of chips on which the halo is measured.
    """
    stride, bands = model.card.output_stride, len(model.card.bands)
    reach = receptive_field(model.network, bands=bands, output_stride=stride)
    measured = {"receptive_field_px": reach, "scores": {}}
    save_model(Model(model.network, model.card.model_copy(update=measured)), folder)
    stored = load_model(folder)  # half precision, as everybody will have it
    exact = stored.card.exact_halo_px
    chips = _chips(places, normalization_for(stored.card, _band_names(stored), "uint8"), exact, halo_chips)
    halo = smallest_halo(stored.network, chips, output_stride=stride, exact=exact)
    log.info("receptive field %d px, halo %d px", reach, halo)
    chip = max(stored.card.chip_px, little_waste(halo, stride))
    card = stored.card.model_copy(update={"halo_px": halo, "chip_px": chip})
    stored = Model(stored.network, card)
    judged = {place: judge(stored, scenes, names, coarse) for place, scenes in places.items()}
    update: dict[str, object] = {"scores": {place: scores for place, (scores, _) in judged.items()}}
    if (fitted := calibrate(_together([sample for _, sample in judged.values()]))) is not None:
        told = fitted.to_card()
        update |= {"temperature": told.pop("temperature"), "calibration": told}
    save_model(Model(stored.network, card.model_copy(update=update)), folder)
    return load_model(folder)


def judge(
    model: Model, scenes: Sequence[ArrayScene], names: Sequence[str], coarse: Coarse
) -> tuple[dict[str, float], Sample]:
    """Whole scenes, with the card's own chip and halo.

    Returns:
        IoU by class and overall accuracy, rounded to 0.001, and labelled pixels to calibrate with.
    """
    matrix = Confusion(names)
    parts = coarse(np.arange(len(model.card.legend.classes))).astype(np.intp)
    predictor = Predictor(model, Backend.resolve(precision="float32", card=model.card))
    rng = np.random.default_rng(0)
    drawn: list[Sample] = []
    for scene in scenes:
        for window, spread in _segmented(predictor, scene):
            rows, cols = window.slices
            reference = coarse(scene.labels[rows, cols])
            matrix.add(reference, parts[spread.argmax(0)])
            known = np.flatnonzero(reference.ravel() >= 0)
            some = rng.choice(known, min(SAMPLED, known.size), replace=False)
            pixels, labels = spread.reshape(len(parts), -1)[:, some].T, reference.ravel()[some]
            drawn.append(Sample(pixels, labels.astype(np.uint8), np.zeros(some.size, np.int64), parts))
    found = matrix.iou() | {"overall_accuracy": matrix.overall_accuracy()}
    return {name: round(value, 3) for name, value in found.items() if np.isfinite(value)}, _together(drawn)


def _together(samples: Sequence[Sample]) -> Sample:
    """All of them; the cells of each are cells of their own."""
    starts = np.cumsum([0, *(int(sample.cells.max(initial=-1)) + 1 for sample in samples)])
    cells = [sample.cells + start for sample, start in zip(samples, starts, strict=False)]
    return Sample(
        np.concatenate([sample.probabilities for sample in samples]),
        np.concatenate([sample.reference for sample in samples]),
        np.concatenate(cells),
        samples[0].parts,
    )


def _segmented(predictor: Predictor, scene: ArrayScene) -> Iterator[tuple[Window, NDArray[np.float32]]]:
    """Windows of a scene and the probabilities (class, height, width) there."""
    card = predictor.model.card
    grid = ChipGrid.of(
        scene.shape, chip=card.chip_px, halo=card.halo_px, output_stride=card.output_stride, block=card.chip_px
    )
    normalization = normalization_for(card, _band_names(predictor.model), "uint8")
    segmenter = Segmenter(grid, normalization, predictor, confidence=False, probabilities=True)

    def read(window: Window) -> Pixels:
        pixels, _ = scene.read(window)
        return Pixels(pixels, np.ones(window.shape, np.bool_))

    for block in grid.blocks():
        spread = segmenter(block.window, read).probabilities
        assert spread is not None
        yield block.window, spread


def _chips(
    places: Mapping[str, Sequence[ArrayScene]], normalization: Normalization, halo: int, count: int
) -> Iterator[NDArray[np.float32]]:
    """Chips at random places of the held-out scenes, alike from each place."""
    rng = np.random.default_rng(0)
    side = CORE + 2 * halo
    groups = list(places.values())
    for number in range(count):
        group = [scene for scene in groups[number % len(groups)] if min(scene.shape) >= side]
        scene = group[int(rng.integers(len(group)))]
        row, col = (int(rng.integers(0, length - side + 1)) for length in scene.shape)
        pixels, _ = scene.read(Window(row, col, side, side))
        yield normalization(pixels, np.ones((side, side), np.bool_))


def _band_names(model: Model) -> list[str]:
    return [band.name for band in model.card.bands]
