"""Training of detectors: objects are the connected parts of class labels, or the footprints of a vector file.

Labels stay class codes, so that scenes, splits and augmentation are those of every training. Where two footprints of
one class touch, a line of pixels between them has no label (`LabelOptions.apart`), which keeps them two parts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from geoseg.errors import InputError
from geoseg.grid.window import windows_of
from geoseg.models.detector import Detector, PanopticFPN, Target
from geoseg.training.config import TrainConfig
from geoseg.training.losses import IGNORE
from geoseg.training.scenes import LabelledScene
from geoseg.training.task import SegmentationTask

LEAST_PX = 12  # parts with fewer pixels are shreds at a chip's edge
LOOKS = 64  # windows that sizes of objects are taken from
LOOK = 1024  # side of such a window
SHARES = (0.1, 0.9)  # quantiles of the sizes that the smallest and the largest anchors are made for
STEP = 4  # anchors are multiples of it


class DetectionTask(SegmentationTask):
    """Fits a detector to samples of (pixels, label codes).

    What is not labelled is not shown either: an object there would count as none.
    """

    network: Detector

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        pixels, labels = batch
        self.begin_step(pixels)
        network = self.network
        chips = torch.where((labels != IGNORE)[:, None], self.normalized(pixels), 0.0)
        targets = [target_of(one, network.things.tolist()) for one in labels]
        features = network.features(chips)
        terms = network.losses(chips, targets, features)
        if isinstance(network, PanopticFPN):
            terms["loss_stuff"] = self.loss(network.stuff(features), labels)
        total = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(total):
            raise self._not_finite("loss", total, [])
        self.log("loss", total, prog_bar=True)
        for name, term in terms.items():
            self.log(name, term)
        return total


def target_of(labels: Tensor, things: Sequence[int]) -> Target:
    """The objects of a chip.

    Args:
        labels: (height, width) of codes.
        things: codes of the classes that objects are of.
    """
    codes = labels.cpu().numpy()
    masks: list[NDArray[np.bool_]] = []
    channels: list[int] = []
    for code in things:
        parts, _ = ndimage.label(codes == code)
        sizes = np.bincount(parts.ravel())
        own = [number for number in range(1, sizes.size) if sizes[number] >= LEAST_PX]
        masks += [parts == number for number in own]
        channels += [code] * len(own)
    stacked = np.stack(masks) if masks else np.empty((0, *codes.shape), np.bool_)
    boxes = np.array([_box(mask) for mask in masks], np.float32).reshape(-1, 4)
    device = labels.device
    return Target(
        torch.tensor(channels, dtype=torch.int64, device=device),
        torch.from_numpy(stacked.astype(np.uint8)).to(device),
        torch.from_numpy(boxes).to(device),
    )


def _box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, cols = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return int(cols[0]), int(rows[0]), int(cols[-1]) + 1, int(rows[-1]) + 1


def with_anchors(
    config: TrainConfig, scenes: Sequence[LabelledScene], network: nn.Module, gsd_range_m: tuple[float, float]
) -> TrainConfig:
    """The config of a detector with anchors for the objects of the labels, where it states none.

    Raises:
        InputError: there are scenes without labels, or chips are mixed, from which a detector does not learn.
    """
    name, args = config.architecture.name, config.architecture.args
    if config.unlabelled is not None:
        raise InputError(f"A {name} does not learn from scenes without labels; leave unlabelled out.")
    if config.augment.mix:
        raise InputError(f"Rectangles of other chips cut objects, which a {name} learns from; leave augment.mix out.")
    if "anchors_px" in args:
        return config
    assert isinstance(network, Detector)
    middle = float(np.sqrt(np.prod(gsd_range_m)))
    anchors = anchors_for(scenes, network.things.tolist(), gsd_m=middle, levels=network.levels, seed=config.run.seed)
    stated = config.architecture.model_copy(update={"args": {**args, "anchors_px": anchors}})
    return config.model_copy(update={"network": stated})


def anchors_for(
    scenes: Sequence[LabelledScene], things: Sequence[int], *, gsd_m: float, levels: int, seed: int = 0
) -> list[int]:
    """Sides of anchors in pixels of `gsd_m` metres for the objects of some scenes, from the finest level on.

    Args:
        scenes: with labels.
        things: codes of the classes that objects are of.
        gsd_m: of the chips.
        levels: of the pyramid.
        seed: of the draw of windows.
    """
    sizes = object_sizes_m(scenes, things, seed=seed) / gsd_m
    low, high = np.quantile(sizes, SHARES) if sizes.size else (16.0, 128.0)
    wanted = np.geomspace(max(low, 2 * STEP), max(high, low * 2, 4 * STEP), levels)
    steps = np.maximum.accumulate(np.rint(wanted / STEP).astype(int))
    return [int(STEP * step) for step in np.maximum(steps, steps[0] + np.arange(levels))]


def object_sizes_m(scenes: Sequence[LabelledScene], things: Sequence[int], *, seed: int = 0) -> NDArray[np.float64]:
    """Square roots of the areas of labelled objects in some windows, in metres."""
    windows = [(scene, window) for scene in scenes for window in windows_of(scene.shape, LOOK)]
    order = np.random.default_rng(seed).permutation(len(windows))[:LOOKS]
    found = [np.empty(0)]
    for scene, window in (windows[number] for number in order.tolist()):
        labels = scene.read_labels(window)
        for code in things:
            parts, _ = ndimage.label(labels == code)
            sizes = np.bincount(parts.ravel())[1:]
            found.append(np.sqrt(sizes[sizes >= LEAST_PX]) * scene.gsd_m)
    return np.concatenate(found)
