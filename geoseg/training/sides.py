"""The sides of a training: what is trained on, what is held out, and what their labels tell."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geoseg.errors import InputError
from geoseg.raster.labels import LabelCodes
from geoseg.training.config import TrainConfig
from geoseg.training.scenes import CELL, LabelCells, ReaderScene, survey
from geoseg.training.splits import by_blocks, by_polygons, by_scenes, sides_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Side:
    """Scenes with what is labelled on one side of the split.

    Attributes:
        scenes: those with labels there.
        cells: of each, where.
    """

    scenes: tuple[ReaderScene, ...]
    cells: tuple[LabelCells, ...]

    @classmethod
    def of(cls, scenes: Sequence[ReaderScene], codes: int) -> Side:
        cells = [survey(scene, codes) for scene in scenes]
        return cls.of_pairs([(scene, own) for scene, own in zip(scenes, cells, strict=True) if len(own.places())])

    @classmethod
    def of_pairs(cls, kept: Sequence[tuple[ReaderScene, LabelCells]]) -> Side:
        return cls(tuple(scene for scene, _ in kept), tuple(own for _, own in kept))

    @property
    def pixels(self) -> Any:
        """(code,) labelled pixels."""
        return sum(own.totals for own in self.cells)


def split_scenes(
    config: TrainConfig, scenes: Sequence[ReaderScene], others: Sequence[ReaderScene], codes: int
) -> tuple[Side, Side, list[ReaderScene]]:
    """What to train on, what is held out, and what of the unlabelled scenes shows nothing of that.

    Raises:
        InputError: the split cannot be made, or leaves one side without labels.
    """
    split, sites = config.split, [scene.site for scene in scenes]
    if split.by == "scenes":
        held = by_scenes(sites, [scene.extent for scene in scenes], [one.role == "validate" for one in config.scenes])
    elif split.polygons is not None:
        held = by_polygons(sites, split.polygons)
    else:
        cells = [survey(scene, codes) for scene in scenes]
        where, pixels = [own.where for own in cells], [own.pixels for own in cells]
        held = by_blocks(where, pixels, cell_px=CELL, block_px=split.block_px, share=split.share, seed=split.seed)
    nothing = [np.empty(0, object) for _ in others]
    sides = sides_of([*sites, *(other.site for other in others)], [*held, *nothing], buffer_px=split.buffer_px)
    pairs = list(zip(scenes, sides, strict=False))
    train = Side.of([scene.for_training(side) for scene, side in pairs], codes)
    validate = Side.of([scene.for_validation(side) for scene, side in pairs], codes)
    for side, name in ((train, "train on"), (validate, "validate with")):
        if not side.scenes:
            raise InputError(
                f"The split by {split.by} leaves no labelled pixel to {name}; hold out other places, give a smaller "
                "split.buffer_px or split.block_px, or compare labels and areas of interest with geoseg info."
            )
    return train, validate, [one.for_training(side) for one, side in zip(others, sides[len(scenes) :], strict=True)]


def codes_of(scenes: Sequence[ReaderScene]) -> LabelCodes:
    """The codes of all labels, which must agree where `other` is one of them.

    Raises:
        InputError: they do not.
    """
    found = max((scene.labels.codes for scene in scenes), key=lambda codes: len(codes.names))
    for scene in scenes:
        own = scene.labels.codes
        if own.members != found.members[: len(own.members)]:
            raise InputError(
                f"'other' means something else on {scene.name} than on other scenes, as its labels tell other classes; "
                "name the classes instead, or leave 'other' out there."
            )
    return found


def check_classes(codes: LabelCodes, train: Side, validate: Side) -> None:
    """Refuse a class that nothing is known of.

    Raises:
        InputError: no pixel to train on has it, nor a group with it.
    """
    told = {channel for code in np.flatnonzero(train.pixels) for channel in codes.members[code]}
    missing = [name for channel, name in enumerate(codes.legend.names) if channel not in told]
    if missing:
        elsewhere = [name for name in missing if validate.pixels[codes.code(name)]]
        hint = f" All labels of {', '.join(elsewhere)} are held out; split otherwise." if elsewhere else ""
        raise InputError(
            f"No pixel to train on is labelled {', '.join(missing)}.{hint} Label some, map label values to it, or take "
            "it out of classes."
        )
    for code, name in enumerate(codes.legend.names):
        if not validate.pixels[code]:
            log.warning("No held-out pixel is labelled %s: there will be no score for it.", name)


def judged(codes: LabelCodes, pixels: Any) -> tuple[tuple[str, ...], Callable[[Any], Any]]:
    """Names that scores are given for, and the index among them of label codes and of channels.

    A group of which labels do not tell the classes apart is one; other partial labels are left out.
    """
    classes = len(codes.legend.classes)
    names, owner = list(codes.names[:classes]), list(range(classes))
    table = np.full(256, -1, np.int16)
    for code in range(classes, len(codes.names)):
        members = codes.members[code]
        if (
            pixels[code]
            and not any(pixels[channel] for channel in members)
            and codes.names[code] in codes.legend.groups
        ):
            names[members[0]] = codes.names[code]
            for channel in members:
                owner[channel] = members[0]
            table[code] = members[0]
    table[:classes] = owner
    used = sorted(set(owner))
    table[table >= 0] = np.searchsorted(used, table[table >= 0])
    return tuple(names[index] for index in used), lambda codes: table[np.asarray(codes)]
