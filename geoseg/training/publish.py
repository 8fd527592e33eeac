"""From trained weights to a bundle: how far the network looks and how good it is are measured and put on its card."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from geoseg.errors import GeosegError
from geoseg.grid import Window
from geoseg.inference.plan import LARGEST_CHIP, little_waste
from geoseg.inference.predictor import Backend, Predictor
from geoseg.inference.segment import Segmenter
from geoseg.models import Model, ModelCard, load_model, save_model
from geoseg.models.detector import Detector
from geoseg.models.pooled import pool_factor, pooled
from geoseg.models.receptive import receptive_field, smallest_halo
from geoseg.training.calibrate import Sample, calibrate
from geoseg.training.chips import grid_of, labelled_blocks, normalization_of, pixels_of
from geoseg.training.detections import judge_objects
from geoseg.training.evaluate import Confusion
from geoseg.training.samples import read_reflected
from geoseg.training.scenes import LabelledScene, measured

log = logging.getLogger(__name__)
CORE = 256  # pixels of the chips on which the halo is measured
HALO_CHIPS = 24
HALOS = 6  # that a detector's chip is wide: it is 2.25 times its core then
SAMPLED = 2000  # pixels of each block that the temperature is fitted to

Places = Mapping[str, Sequence[LabelledScene]]
Coarse = Callable[[NDArray[np.integer]], NDArray[np.int16]]


def publish(
    model: Model,
    folder: Path,
    *,
    places: Places,
    names: Sequence[str],
    coarse: Coarse,
    halo_chips: int = HALO_CHIPS,
    scores_of: ModelCard | None = None,
) -> Model:
    """Write a bundle whose receptive field, halo and held-out scores are measured on what is stored.

    Args:
        model: trained network and a card whose measured fields are still provisional.
        folder: of the bundle.
        places: scenes not trained on, by place.
        names: classes that scores are given for.
        coarse: index in `names` of label codes and of channels; negative where unknown.
        halo_chips: number of chips on which the halo is measured.
        scores_of: has the scores and temperature to state, of a model that saw less; nothing is judged then.
    """
    save_model(Model(model.network, model.card.model_copy(update={"scores": {}})), folder)
    stored = load_model(folder)  # half precision, as everybody will have it
    card = stored.card.model_copy(update=_measured(stored, places, halo_chips))
    stored = Model(stored.network, card)
    if scores_of is not None:
        kept = {name: getattr(scores_of, name) for name in ("scores", "temperature", "calibration")}
        save_model(Model(stored.network, card.model_copy(update=kept)), folder)
        return load_model(folder)
    judged = {place: judge(stored, scenes, names, coarse) for place, scenes in places.items()}
    scores = {place: found for place, (found, _) in judged.items()}
    if isinstance(stored.network, Detector):
        scores = {place: found | judge_objects(stored, places[place]) for place, found in scores.items()}
    update: dict[str, object] = {"scores": scores}
    if (fitted := calibrate(_together([sample for _, sample in judged.values()]))) is not None:
        told = fitted.to_card()
        update |= {"temperature": told.pop("temperature"), "calibration": told}
    save_model(Model(stored.network, card.model_copy(update=update)), folder)
    return load_model(folder)


def _measured(model: Model, places: Places, halo_chips: int) -> dict[str, object]:
    """How far the network looks, and how much of that matters; where there is no end to it, a ramp over the seams."""
    card, stride, bands = model.card, model.card.output_stride, len(model.card.bands)
    side = max(1, card.chip_px // 4 // stride) * stride
    if isinstance(model.network, Detector):
        return _around(model.network, card)
    try:
        reach = receptive_field(model.network, bands=bands, output_stride=stride)
    except GeosegError:
        log.info("the network sees the whole chip: halo %d px, with a ramp", side)
        return {
            "receptive_field_px": card.chip_px,
            "halo_px": side,
            "ramp_px": side // 2 * 2,
            "position_independent": False,
        }
    exact = card.model_copy(update={"receptive_field_px": reach}).exact_halo_px
    chips = _chips(places, card, exact, halo_chips)
    halo = smallest_halo(model.network, chips, output_stride=stride, exact=exact)
    log.info("receptive field %d px, halo %d px", reach, halo)
    chip = max(card.chip_px, little_waste(halo, stride))
    return {"receptive_field_px": reach, "halo_px": halo, "chip_px": chip}


def _around(detector: Detector, card: ModelCard) -> dict[str, object]:
    """Halo and chip of a detector: a halo as wide as its proposals look, so that chips agree on what they share.

    It makes no chip exact: boxes are looked at whole, and objects that reach beyond the halo are joined by what both
    chips see of them.
    """
    stride, most = card.output_stride, LARGEST_CHIP // 4
    try:
        reach = receptive_field(_Evidence(detector), bands=len(card.bands), output_stride=stride)
    except GeosegError:
        reach = card.chip_px // 4
    halo = min(-(-reach // stride), most // stride) * stride
    chip = max(card.chip_px, min(HALOS * halo, LARGEST_CHIP // stride * stride))
    return {"receptive_field_px": chip, "halo_px": halo, "chip_px": chip, "position_independent": False}


class _Evidence(nn.Module):
    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, chips: Tensor) -> Tensor:
        return self.detector.evidence(chips)


def judge(
    model: Model, scenes: Sequence[LabelledScene], names: Sequence[str], coarse: Coarse
) -> tuple[dict[str, float], Sample]:
    """Whole scenes, with the card's own chip and halo.

    Returns:
        IoU by class and overall accuracy, rounded to 0.001, and labelled pixels to calibrate with.
    """
    matrix = Confusion(names)
    parts = coarse(np.arange(len(model.card.legend.classes))).astype(np.intp)
    rng = np.random.default_rng(0)
    drawn: list[Sample] = []
    for scene in scenes:
        seen = pooled(model, pool_factor(model.card, scene.gsd_m))
        predictor = Predictor(seen, Backend.resolve(precision="float32", card=model.card))
        for window, spread in _segmented(predictor, scene):
            reference = coarse(scene.read(window)[1])  # what is not measured has no label there
            matrix.add(reference, parts[spread.argmax(0)])
            known = np.flatnonzero(reference.ravel() >= 0)
            some = rng.choice(known, min(SAMPLED, known.size), replace=False)
            pixels, labels = spread.reshape(len(parts), -1)[:, some].T, reference.ravel()[some]
            drawn.append(Sample(pixels, labels.astype(np.uint8), np.zeros(some.size, np.int64), parts))
    labelled = matrix.counts.sum(1)  # without a label, a class has no score
    found = {name: value for (name, value), count in zip(matrix.iou().items(), labelled, strict=True) if count}
    found["overall_accuracy"] = matrix.overall_accuracy()
    return {name: round(value, 3) for name, value in found.items()}, _together(drawn)


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


def _segmented(predictor: Predictor, scene: LabelledScene) -> Iterator[tuple[Window, NDArray[np.float32]]]:
    """Windows of a scene that may be labelled, and the probabilities (class, height, width) there."""
    card = predictor.model.card
    grid = grid_of(card, scene)
    segmenter = Segmenter(grid, normalization_of(card), predictor, confidence=False, probabilities=True)
    read = pixels_of(scene)
    for block in labelled_blocks(grid, scene):
        spread = segmenter(block.window, read).probabilities
        assert spread is not None
        yield block.window, spread


def _chips(places: Places, card: ModelCard, halo: int, count: int) -> Iterator[NDArray[np.float32]]:
    """Chips at random places of the held-out scenes, alike from each place; mirrored beyond a scene's edge."""
    rng = np.random.default_rng(0)
    side = CORE + 2 * halo
    groups, normalization = list(places.values()), normalization_of(card)
    for number in range(count):
        group = groups[number % len(groups)]
        large = [scene for scene in group if min(scene.extent.shape) >= side] or group
        scene = large[int(rng.integers(len(large)))]
        pool = pool_factor(card, scene.gsd_m)
        row, col = (int(rng.integers(0, max(0, length - side * pool) + 1)) for length in scene.extent.shape)
        wanted = Window(row + scene.extent.row, col + scene.extent.col, side * pool, side * pool)
        pixels, _ = read_reflected(scene, wanted)
        chip = normalization(pixels, measured(pixels))
        yield chip.reshape(len(chip), side, pool, side, pool).mean((2, 4))
