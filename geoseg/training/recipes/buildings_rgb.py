"""Train a Mask R-CNN for buildings, which does not ship (see `benchmarks/RESULTS.md`).

`python -m geoseg.training.recipes.buildings_rgb --data DIR --out DIR --start MODEL`: MODEL gives the encoder; it must
not have seen the held-out places either if they are to be judged. Scenes and held-out places are those of
`landcover_rgb`. Objects are the connected parts of the class building.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from geoseg.legend import LegendClass
from geoseg.models import Architecture
from geoseg.training.config import AugmentConfig, LabelledSource, RunConfig, SplitConfig, StartConfig, TrainConfig
from geoseg.training.recipes.landcover_rgb import MADE_WEIGHT, POOL_TO_M, made_scenes, real_sources
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
    config = config_of([of_buildings(source) for source in [*real_sources(args.data), *made]], run, args.start)
    Training.of(config).run(args.out / "run", resume=args.resume)


def config_of(scenes: list[LabelledSource], run: RunConfig, start: str) -> TrainConfig:
    """The training of the bundle."""
    return TrainConfig(
        name="buildings-rgb",
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


if __name__ == "__main__":
    main()
