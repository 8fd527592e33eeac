"""A search for objects, settled before it starts: which model looks at which scene for objects of which classes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from geoseg.errors import InputError
from geoseg.grid import ChipGrid
from geoseg.inference.fit import normalization_for
from geoseg.inference.job import Job, Scene
from geoseg.inference.plan import RunOptions
from geoseg.inference.predictor import Predictor
from geoseg.models import Model, load_model
from geoseg.models.architectures import DETECTORS
from geoseg.objects.baseline import segment_to, split_objects
from geoseg.objects.detect import DetectBlock, Looker, from_note, pieces_of, to_note
from geoseg.objects.join import Found, Piece, join_pieces
from geoseg.objects.paint import Objects
from geoseg.objects.staged import Orders, computed, write_layers
from geoseg.raster.cog import is_current
from geoseg.raster.disk import publish_bytes
from geoseg.raster.reader import SceneOptions
from geoseg.raster.staging import digest_of

Progress = Callable[[str, int, int], None]  # step, pixels done, pixels in all
USUAL = "building"
LEAST_SCORE = 0.5  # of a detector's objects


@dataclass(frozen=True)
class Search:
    """A model on a scene.

    Attributes:
        job: scene, model and plan.
        classes: names of the classes and groups whose objects are looked for.
        run: workers and so on.
        least_score: a detector's objects below it are left out.
        with_stuff: whether the classes of all other pixels are wanted too.
    """

    job: Job
    classes: tuple[str, ...]
    run: RunOptions
    least_score: float = LEAST_SCORE
    with_stuff: bool = False

    @classmethod
    def of(
        cls,
        scene: Scene,
        model: str | os.PathLike[str] | Model,
        classes: Sequence[str] | None,
        *,
        reading: SceneOptions | None,
        run: RunOptions | None,
        least_score: float = LEAST_SCORE,
        with_stuff: bool = False,
    ) -> Search:
        """Open the scene, and settle what is to be done.

        Raises:
            InputError: scene, model, a class or an option cannot be used.
        """
        if not 0 <= least_score <= 1:
            raise InputError(f"The least score of an object is 0 to 1, not {least_score:g}.")
        run, loaded = run or RunOptions(), load_model(model)
        wanted = wanted_classes(loaded, classes)
        if is_detector(loaded) and run.precision == "auto":
            run = replace(run, precision="float32")
        if with_stuff and loaded.card.architecture.name == "mask-rcnn":
            raise InputError(
                f"Model {loaded.card.name} sees objects only; for every pixel a class, give another model."
            )
        job = Job.of(scene, loaded, reading or SceneOptions(), run, kept=(True, False))
        _ = job.segmenter  # refuses pixels of a kind that the model does not know
        return cls(job, wanted, run, least_score, with_stuff)

    @property
    def parts(self) -> dict[str, Any]:
        """What the objects depend on."""
        least = {"score": self.least_score} if is_detector(self.job.model) else {}
        return {**self.job.parts, "search": {"classes": list(self.classes), "stuff": self.with_stuff, **least}}

    def land(self, folder: Path) -> tuple[Path, Path]:
        """Class map and confidence that `objects` left in a folder."""
        return folder / "landcover.tif", folder / "confidence.tif"

    def objects(self, folder: Path, *, overwrite: bool, progress: Progress) -> Objects:
        """Look.

        Args:
            folder: a work folder; what a stopped run left there is gone on with.
            overwrite: throw staged blocks of another run away.
            progress: called with step, pixels done and pixels in all.
        """
        if not is_detector(self.job.model):
            cover, confidence = segment_to(folder, self.job, self.run, overwrite=overwrite, progress=progress)
            return split_objects(cover, confidence, classes=self.classes, progress=progress)
        pieces = self._pieces(folder, overwrite=overwrite, progress=progress)
        selections = self.job.model.card.legend.select(self.classes)
        found = [self._on_output(one) for one in join_pieces(pieces, self._grid)]
        return Objects.of_masks(found, selections)

    def _pieces(self, folder: Path, *, overwrite: bool, progress: Progress) -> list[Piece]:
        """Of all chips; with stuff, its land cover and confidence are in the folder afterwards."""
        job, kept = self.job, folder / f"pieces-{digest_of(self.parts)[:16]}.json"
        (cover, confidence), layers = self.land(folder), []
        if self.with_stuff:
            layers = job.layers(cover, confidence, None)
        digest = digest_of(self.parts)
        if kept.is_file() and all(is_current(layer.path, digest) for layer in layers):
            return [from_note(told) for told in json.loads(kept.read_bytes())]
        layout = replace(job.layout, layers={layer.name: len(layer.bands) for layer in layers})
        orders = Orders(cover, self.parts, layout, self.run, overwrite)
        task = partial(DetectBlock, job.reader, self._looker, aoi=job.aoi)
        with computed(job, orders, lambda writer: task(writer=writer), partial(progress, "detect")) as staging:
            staging.check_complete()
            write_layers(staging, layers, job, self.parts)
            pieces = pieces_of(staging.notes().values())
            publish_bytes(kept, json.dumps([to_note(piece) for piece in pieces]).encode())
        return pieces

    @property
    def _looker(self) -> Looker:
        job = self.job
        reader, card = job.reader, job.model.card
        normalization = normalization_for(card, reader.bands, reader.dtype, scale=reader.scale, offset=reader.offset)
        wanted = {number for selection in card.legend.select(self.classes) for number in selection.ids}
        things = tuple(channel for channel, number in enumerate(card.legend.ids) if number in wanted)
        predictor = Predictor(job.model, job.plan.backend)
        return Looker(self._grid, normalization, predictor, things, self.least_score, self.with_stuff)

    @property
    def _grid(self) -> ChipGrid:
        """Each chip is of one block: objects are joined, and nothing is feathered."""
        return replace(self.job.plan.grid, ramp=0)

    def _on_output(self, found: Found) -> Found:
        """An object where it lies on the output, which an area of interest cuts from the scene."""
        extent = self.job.extent
        return replace(found, window=found.window.shifted(-extent.row, -extent.col))


def is_detector(model: Model) -> bool:
    return model.card.architecture.name in DETECTORS


def thing_names(model: Model) -> tuple[str, ...]:
    """Names of the classes that a detector's objects are of."""
    names, args = model.card.legend.names, model.card.architecture.args
    if model.card.architecture.name == "mask-rcnn":
        return names[:-1]
    things = args.get("things", [0])
    assert isinstance(things, list)
    return tuple(names[channel] for channel in things)


def wanted_classes(model: Model, classes: Sequence[str] | None) -> tuple[str, ...]:
    """Names of the classes whose objects are looked for.

    Raises:
        InputError: a name is not in the legend, a detector sees no objects of it, or none is given and none is usual.
    """
    model.card.check_has_classes()
    name, legend = model.card.name, model.card.legend
    if is_detector(model):
        known = thing_names(model)
        strange = [one for one in classes or () if one not in known]
        if strange:
            raise InputError(f"Model {name} sees no objects of class {strange[0]!r}; it sees {', '.join(known)}.")
        return known if classes is None else tuple(classes)
    if classes is not None:
        legend.select(classes)
        return tuple(classes)
    if USUAL in legend.names:
        return (USUAL,)
    raise InputError(
        f"Model {name} knows no {USUAL}; say of which classes objects are wanted, with --classes (geoseg instances) or "
        f"--things (geoseg panoptic), as in {legend.names[0]}. It has {', '.join(legend.names)}."
    )
