"""Consistency training: scenes without labels teach the network to keep its answer when colors change.

    unlabelled chip ──geometry──▶ weak view ──averaged network──▶ answer where it is sure
                         └──colors──▶ strong view ──network──▶ cross-entropy to that answer

The teacher is the average of the network's weights (mean teacher: Tarvainen & Valpola 2017, arXiv:1703.01780). Its
answer on a view of which only the place, scale and angle are changed is a label for a view of the same pixels in other
colors, where its probability passes a threshold (FixMatch: Sohn et al. 2020, arXiv:2001.07685). Rectangles of one chip
are put into another, with their answers (CutMix: Yun et al. 2019, French et al. 2020, arXiv:1906.01916).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from geoseg.catalog import open_named_reader
from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.legend import Legend
from geoseg.raster.label_codes import UNLABELLED, Codes, LabelCodes
from geoseg.training.config import SceneSource, UnlabelledConfig
from geoseg.training.losses import IGNORE
from geoseg.training.samples import Samples, read_reflected
from geoseg.training.scenes import LabelCells, ReaderScene, regions_of, scale_of, survey
from geoseg.training.task import SegmentationTask, mixed

COARSEST = 2.0  # pixels of the coarsest labelled scene; what is coarser shows less than the network is to see
RAMP = 5.0  # how slowly the weight rises at first

Chips = tuple[Tensor, Tensor]
Views = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Everywhere:
    """The `LabelReader` of a scene without labels: code 0 says that a pixel may be learned from.

    Attributes:
        codes: of the legend, none of which is meant.
        extent: the scene.
        told: nothing.
    """

    codes: LabelCodes
    extent: Window
    told: tuple[str, ...] = ()

    def __call__(self, window: Window) -> Codes:
        """(height, width): 0 inside the scene, UNLABELLED beyond it."""
        codes = np.full(window.shape, UNLABELLED, np.uint8)
        codes[window.clipped(self.extent.shape).relative_to(window).slices] = 0
        return codes


def open_unlabelled(source: SceneSource, bands: Sequence[str], legend: Legend) -> ReaderScene:
    """A scene without labels; nothing but headers and polygons is read.

    Raises:
        InputError: the scene or its area of interest cannot be used, or the size of a pixel is unknown.
    """
    named = source.scene if isinstance(source.scene, str) else list(source.scene)
    name = named if isinstance(named, str) else named[0]
    reader = open_named_reader(named, source.reading).select(bands)
    if reader.gsd_m is None:
        raise InputError(f"The size of a pixel of {name} is not known; state gsd_m, in metres, beside the scene.")
    labels = Everywhere(LabelCodes.of(legend), Window(0, 0, *reader.shape))
    return ReaderScene(name, reader, labels, scale_of(reader), reader.offset or 0.0, regions_of(source.aoi, reader))


def places_of(scenes: Sequence[ReaderScene], labelled: Sequence[ReaderScene]) -> list[tuple[ReaderScene, LabelCells]]:
    """Scenes without labels that have anything left outside what is held out, and where.

    Raises:
        InputError: none has, or a scene is too coarse to show what the labelled ones show.
    """
    coarsest = max(scene.gsd_m for scene in labelled)
    for scene in scenes:
        if scene.gsd_m > COARSEST * coarsest:
            raise InputError(
                f"The unlabelled scene {scene.name} has pixels of {scene.gsd_m:g} m, those with labels of at most "
                f"{coarsest:g} m; give scenes of a like resolution, or state gsd_m if the file's own is wrong."
            )
    cells = [survey(scene, 1) for scene in scenes]
    kept = [(scene, own) for scene, own in zip(scenes, cells, strict=True) if len(own.places())]
    if not kept:
        names = ", ".join(scene.name for scene in scenes)
        raise InputError(f"All of the unlabelled {names} is held out or outside its aoi; give other scenes.")
    return kept


@dataclass
class TwoViews(Dataset[Views]):
    """The same pixels twice: one geometry, and other colors the second time.

    Attributes:
        samples: what is drawn from; geometry is as its augmentation says.
        strength: of the second view's colors, in units of that augmentation.
    """

    samples: Samples
    strength: float

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Views:
        """Weak and strong view (band, size, size) float32, NaN where not measured; IGNORE where nothing counts."""
        samples = self.samples
        draw, rng = samples.draw(index)
        pixels, codes = (torch.from_numpy(part) for part in read_reflected(draw.scene, draw.window))
        weak, counts = samples.augmentation.moved(
            pixels, codes, size=samples.size, reach=draw.reach, angle=draw.angle, rng=rng
        )
        return weak, samples.augmentation.stronger(self.strength).in_other_light(weak, rng), counts


@dataclass
class Paired(Dataset[tuple[Chips, Views]]):
    """A labelled sample and two views of an unlabelled one, by the same index."""

    labelled: Samples
    unlabelled: TwoViews

    def __len__(self) -> int:
        return len(self.labelled)

    def __getitem__(self, index: int) -> tuple[Chips, Views]:
        return self.labelled[index], self.unlabelled[index]


class ConsistencyTask(SegmentationTask):
    """Fits a network to labelled samples and to the sure answers of its own average on unlabelled ones.

    Args:
        stated: weight, ramp, threshold and mixing.
        args: of `SegmentationTask`.
        kwargs: likewise.
    """

    def __init__(self, stated: UnlabelledConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stated = stated

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (pixels, labels), (weak, strong, counts) = batch
        self.begin_step(pixels)
        answers = self.answers(weak, counts)
        pixels, labels = mixed(self.mix, pixels, labels)
        strong, answers, counts = mixed(self.stated.mix, strong, answers, counts)
        logits = self.network(self.normalized(torch.cat([pixels, strong])))
        supervised = self.checked(logits[: len(pixels)], labels)
        known = (counts != IGNORE).sum().clamp(min=1)
        consistency = _cross_entropy(logits[len(pixels) :], answers) / known
        total = supervised + self.stated.weight * ramp(self.global_step, self.stated.ramp_steps) * consistency
        self.log("loss", total, prog_bar=True)
        self.log("consistency", consistency)
        self.log("confident", (answers != IGNORE).sum() / known)
        return total

    @torch.no_grad()
    def answers(self, weak: Tensor, counts: Tensor) -> Tensor:
        """(sample, height, width): the averaged network's classes; IGNORE where it is not sure or nothing counts."""
        spread = self.average.module.eval()(self.normalized(weak)).float().softmax(1)
        probability, channel = spread.max(1)
        sure = (probability >= self.stated.threshold) & (counts != IGNORE)
        return torch.where(sure, channel, IGNORE)


def ramp(step: int, steps: int) -> float:
    """0.007 at step 0 to 1 at `steps` and after, along a Gaussian (Laine & Aila 2017, arXiv:1610.02242)."""
    return math.exp(-RAMP * (1 - min(1.0, step / steps)) ** 2)


def _cross_entropy(logits: Tensor, answers: Tensor) -> Tensor:
    """Sum over the pixels that have an answer."""
    return torch.nn.functional.cross_entropy(logits.float(), answers, ignore_index=IGNORE, reduction="sum")
