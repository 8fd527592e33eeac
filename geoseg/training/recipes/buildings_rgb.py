"""Train the bundle `buildings-rgb`.

`python -m geoseg.training.recipes.buildings_rgb --data DIR --out DIR --start MODEL`: MODEL gives the encoder, or all
weights where it is such a network; it must not have seen the held-out places either if they are to be judged. Scenes
and held-out places are those of `landcover_rgb`. Objects are the connected parts of the class building. In Dubai these
are blocks of houses with all that is between them, from which a network learns to see blocks: there buildings are not
shown (but were to version 1). With `--mosaics DIR` all of these are trained on, and drone mosaics are held out in their
place: NAME_rgb.tif with the outlines NAME_buildings.geojson.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from geoseg.legend import LegendClass
from geoseg.models import Architecture
from geoseg.training.config import AugmentConfig, LabelledSource, RunConfig, SplitConfig, StartConfig, TrainConfig
from geoseg.training.recipes.landcover_rgb import BANDS, MADE_WEIGHT, MBRSC, POOL_TO_M, made_scenes, real_sources
from geoseg.training.train import Training

BUILDING, OTHER = "building", "other"
CLASSES = (
    LegendClass(id=1, name=BUILDING, color="#d7301f"),
    LegendClass(id=2, name=OTHER, color="#dcdcc8"),
)
NETWORK: dict[str, int | float | str | bool | list[int]] = {
    "encoder": "tu-resnet18",
    "depth": 4,
    "channels": 128,
    "box_features": 256,
    "anchors_px": [16, 32, 64, 128],
}
LIMITATIONS = (
    "Trained for less than an hour on two CPU cores, from two regions and synthetic scenes; parts of roofs count as "
    "buildings of their own where the labels have them apart, and touching houses as one where they have not."
)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", required=True, help="bundle whose encoder to start from")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--synthetic", type=int, default=12, help="number of synthetic scenes in the mix")
    parser.add_argument("--loaders", type=int, default=1, help="loader processes")
    parser.add_argument("--mosaics", type=Path, help="folder of what is held out instead")
    parser.add_argument("--version", default="1", help="of the bundle")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    made = made_scenes(args.out / "synthetic", args.synthetic, weight=MADE_WEIGHT)
    run = RunConfig(
        steps=args.steps,
        batch=args.batch,
        loaders=args.loaders,
        learning_rate=5e-4,
        clip=5.0,
        average=0.99,
        balance=0.5,
    )
    scenes = [of_buildings(without_blocks(source)) for source in [*real_sources(args.data), *made]]
    if args.mosaics:
        seen = [source.model_copy(update={"role": "train", "place": None}) for source in scenes]
        scenes = [*seen, *mosaics(args.mosaics)]
    config = config_of(scenes, run, args.start, args.version)
    Training.of(config).run(args.out / "run", resume=args.resume)


def config_of(scenes: list[LabelledSource], run: RunConfig, start: str, version: str) -> TrainConfig:
    """The training of the bundle."""
    return TrainConfig(
        name="buildings-rgb",
        version=version,
        description="Buildings from RGB imagery of 0.05 to 1.2 m, each an object: Mask R-CNN on resnet18.",
        license="Apache-2.0",
        limitations=LIMITATIONS,
        classes=CLASSES,
        pool_to_m=POOL_TO_M,
        scenes=tuple(scenes),
        split=SplitConfig(by="scenes"),
        network=Architecture(name="mask-rcnn", args=NETWORK),
        start=StartConfig(weights=start),
        augment=AugmentConfig(scale=1.4, shadow=0.4),
        run=run,
    )


def of_buildings(source: LabelledSource) -> LabelledSource:
    """Labels that tell buildings from all else."""
    known = source.map or {name: name for name in ("building", "paved", "bare", "tree", "low_vegetation", "water")}
    told = {value: BUILDING if name == BUILDING else OTHER for value, name in known.items()}
    return source.model_copy(update={"map": told})


def without_blocks(source: LabelledSource) -> LabelledSource:
    """A scene of Dubai with its buildings unlabelled; any other as it is."""
    if source.data != MBRSC or source.map is None:
        return source
    blocks = tuple(value for value, name in source.map.items() if name == "building")
    named = {value: name for value, name in source.map.items() if value not in blocks}
    return source.model_copy(update={"map": named, "ignore": (*source.ignore, *blocks)})


def mosaics(folder: Path) -> list[LabelledSource]:
    """Drone mosaics with outlines, all of them buildings, as one place."""
    return [
        LabelledSource(
            scene=str(scene),
            labels=str(scene.with_name(scene.name.replace("_rgb.tif", "_buildings.geojson"))),
            column=BUILDING,
            map={"yes": BUILDING},
            elsewhere=OTHER,
            role="validate",
            place="drone mosaics",
            bands=BANDS,
        )
        for scene in sorted(folder.glob("*_rgb.tif"))
    ]


if __name__ == "__main__":
    main()
