"""Train the bundle `panoptic-rgb`: `python -m geoseg.training.recipes.panoptic_rgb --data DIR --out DIR --start MODEL`.

MODEL gives the encoder, or all weights where it is such a network; it must not have seen the held-out places if they
are to be judged. Scenes, held-out places and classes are those of `landcover_rgb`; buildings are the connected parts of
their class, but for Dubai, as in `buildings_rgb`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from geoseg.legend import LANDCOVER
from geoseg.models import Architecture
from geoseg.training.config import (
    AugmentConfig,
    LabelledSource,
    LossConfig,
    RunConfig,
    SplitConfig,
    StartConfig,
    TrainConfig,
)
from geoseg.training.recipes.buildings_rgb import NETWORK as DETECTOR
from geoseg.training.recipes.buildings_rgb import without_blocks
from geoseg.training.recipes.landcover_rgb import (
    ALL,
    MADE_WEIGHT,
    POOL_TO_M,
    WEIGHTS,
    made_scenes,
    real_sources,
    train,
)

NETWORK: dict[str, int | float | str | bool | list[int]] = {"things": [LANDCOVER.names.index("building")], **DETECTOR}
LIMITATIONS = (
    "Trained for about an hour on two CPU cores, from two regions and synthetic scenes. Rows of houses with their "
    "gardens may be one building, and touching houses are one where the labels have them so; on drone mosaics it "
    "misses most tin roofs. Its land cover is a little worse than that of landcover-rgb."
)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", required=True, help="bundle whose encoder to start from")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--synthetic", type=int, default=40, help="number of synthetic scenes in the mix")
    parser.add_argument("--loaders", type=int, default=1, help="loader processes")
    parser.add_argument("--version", default="1", help="of the bundle")
    parser.add_argument("--all", metavar="BUNDLE", help=ALL)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    real = [without_blocks(source) for source in real_sources(args.data)]
    scenes = [*real, *made_scenes(args.out / "synthetic", args.synthetic, weight=MADE_WEIGHT)]
    run = RunConfig(
        steps=args.steps,
        batch=args.batch,
        loaders=args.loaders,
        decay=0.35,
        learning_rate=5e-4,
        clip=5.0,
        balance=0.5,
    )
    train(config_of(scenes, run, args.start, args.version), args.out / "run", judged=args.all, resume=args.resume)


def config_of(scenes: list[LabelledSource], run: RunConfig, start: str, version: str) -> TrainConfig:
    """The training of the bundle."""
    return TrainConfig(
        name="panoptic-rgb",
        version=version,
        description="Land cover from RGB imagery of 0.05 to 1.1 m, each building an object: Panoptic FPN on resnet18.",
        license="Apache-2.0",
        limitations=LIMITATIONS,
        classes=LANDCOVER.classes,
        pool_to_m=POOL_TO_M,
        scenes=tuple(scenes),
        split=SplitConfig(by="scenes"),
        network=Architecture(name="panoptic-fpn", args=NETWORK),
        start=StartConfig(weights=start),
        loss=LossConfig(class_weights=WEIGHTS),
        augment=AugmentConfig(scale=1.4, shadow=0.4),
        run=run,
    )


if __name__ == "__main__":
    main()
