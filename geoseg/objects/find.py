"""A search for objects, settled before it starts: which model looks at which scene for objects of which classes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from geoseg.errors import InputError
from geoseg.inference.job import Job, Scene
from geoseg.inference.plan import RunOptions
from geoseg.legend import Legend
from geoseg.models import Model, load_model
from geoseg.objects.baseline import segment_to, split_objects
from geoseg.objects.paint import Objects
from geoseg.raster.reader import SceneOptions

Progress = Callable[[str, int, int], None]  # step, pixels done, pixels in all
USUAL = "building"


@dataclass(frozen=True)
class Search:
    """A model on a scene.

    Attributes:
        job: scene, model and plan.
        classes: names of the classes and groups whose objects are looked for.
        run: workers and so on.
    """

    job: Job
    classes: tuple[str, ...]
    run: RunOptions

    @classmethod
    def of(
        cls,
        scene: Scene,
        model: str | os.PathLike[str] | Model,
        classes: Sequence[str] | None,
        reading: SceneOptions | None,
        run: RunOptions | None,
    ) -> Search:
        """Open the scene, and settle what is to be done.

        Raises:
            InputError: scene, model, a class or an option cannot be used.
        """
        run, loaded = run or RunOptions(), load_model(model)
        wanted = wanted_classes(loaded, classes)
        job = Job.of(scene, loaded, reading or SceneOptions(), run, kept=(True, False))
        return cls(job, wanted, run)

    def objects(self, folder: Path, *, overwrite: bool, progress: Progress) -> Objects:
        """Look.

        Args:
            folder: a work folder; what a stopped run left there is gone on with.
            overwrite: throw staged blocks of another run away.
            progress: called with step, pixels done and pixels in all.
        """
        cover, confidence = segment_to(folder, self.job, self.run, overwrite=overwrite, progress=progress)
        return split_objects(cover, confidence, classes=self.classes, progress=progress)


def wanted_classes(model: Model, classes: Sequence[str] | None) -> tuple[str, ...]:
    """Names of the classes whose objects are looked for.

    Raises:
        InputError: a name is not in the legend, or none is given and none is usual.
    """
    legend: Legend = model.card.legend
    if classes is None:
        if USUAL not in legend.names:
            raise InputError(
                f"Model {model.card.name} knows no {USUAL}; say of which classes objects are wanted, as in --classes "
                f"{legend.names[0]}. It has {', '.join(legend.names)}."
            )
        return (USUAL,)
    legend.select(classes)
    return tuple(classes)
