"""Train the bundle `landcover-rgbn`: `python -m geoseg.training.recipes.landcover_rgbn --data DIR --out DIR`.

DIR holds FLAIR orthophotos at 0.2 m (`zone_X_rgb.tif`, `zone_X_nir.tif`) with 19 classes (`zone_X_labels.tif`). Zone B
is held out. Synthetic scenes with near infrared join the mix. It starts from `landcover-rgb`, or from the bundle given:
one that has seen zone B would make the scores there worthless, so `--start` is a fold that has not, where they matter.
What ships is trained on all zones, from a `landcover-rgb` that was too: `--all BUNDLE` keeps the scores of BUNDLE.
"""

from __future__ import annotations

import argparse
from pathlib import Path

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
from geoseg.training.recipes.landcover_rgb import (
    ALL,
    FLAIR,
    IGN,
    MIX,
    NETWORK,
    POOL_TO_M,
    made_scenes,
    source_of,
    train,
)

BANDS = ("red", "green", "blue", "nir")
LIMITATIONS = (
    "Trained for an hour on two CPU cores, from one region of southern France and synthetic scenes: elsewhere expect "
    "less than the scores. Near infrared must be the camera's own, not one stretched for display."
)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", default="landcover-rgb", help="bundle whose weights to start from")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--synthetic", type=int, default=12, help="number of synthetic scenes in the mix")
    parser.add_argument("--version", default="1", help="of the bundle")
    parser.add_argument("--all", metavar="BUNDLE", help=ALL)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    made = made_scenes(args.out / "synthetic", args.synthetic)
    config = config_of([*flair_sources(args.data), *made], args.start, args.steps, args.version)
    train(config, args.out / "run", judged=args.all, resume=args.resume)


def config_of(scenes: list[LabelledSource], start: str, steps: int, version: str) -> TrainConfig:
    """The training that the bundle comes from."""
    return TrainConfig(
        name="landcover-rgbn",
        version=version,
        description="Land cover from aerial imagery of red, green, blue and near infrared, 0.05 to 1.2 m.",
        license="Apache-2.0",
        limitations=LIMITATIONS,
        bands=BANDS,
        pool_to_m=POOL_TO_M,
        scenes=tuple(scenes),
        split=SplitConfig(by="scenes"),
        network=Architecture(name="unet", args=NETWORK),
        start=StartConfig(weights=start),
        loss=LossConfig(class_weights={"building": 2.0, "paved": 1.3, "low_vegetation": 0.8}),
        augment=AugmentConfig(scale=1.7, shadow=0.3, mix=MIX),
        run=RunConfig(steps=steps, learning_rate=5e-4, validate_every=250, validation_chips=48),
    )


def flair_sources(data: Path) -> list[LabelledSource]:
    """The zones with near infrared beside the colors."""
    bands = {name: str(number) for number, name in enumerate(BANDS, 1)}
    return [
        source_of(rgb, rgb.with_name(rgb.name.replace("_rgb", "_labels")), FLAIR, IGN).model_copy(
            update={"scene": [str(rgb), str(rgb.with_name(rgb.name.replace("_rgb", "_nir")))], "bands": bands}
        )
        for rgb in sorted(data.glob("zone_*_rgb.tif"))
    ]


if __name__ == "__main__":
    main()
