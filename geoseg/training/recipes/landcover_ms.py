"""Train the bundle `landcover-ms`: `python -m geoseg.training.recipes.landcover_ms --data DIR --out DIR`.

DIR is a folder of 128 x 128 px tiles of Harmonized Landsat Sentinel-2 reflectance (`tNNN.tif`: coastal, blue, green,
red, NIR, SWIR 1, SWIR 2) with ESA WorldCover codes (`tNNN_worldcover.png`) and `tiles.csv`, whose `overlap_group` tells
tiles that share ground. Every fifth group is held out. WorldCover is a model's answer, of another date: weak labels.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from geoseg.legend import LegendClass
from geoseg.models import Architecture, TrainingData
from geoseg.training.config import AugmentConfig, LabelledSource, LossConfig, RunConfig, SplitConfig, TrainConfig
from geoseg.training.train import Training

BANDS = {"blue": "2", "green": "3", "red": "4", "nir": "5", "swir16": "6", "swir22": "7"}
GSD_M = 30.0
EVERY = 5  # groups of which one is held out
WORLDCOVER = {
    "10": "tree",
    "20": "low_vegetation",
    "30": "low_vegetation",
    "40": "low_vegetation",
    "50": "built_up",
    "60": "bare",
    "80": "water",
    "90": "low_vegetation",
    "100": "low_vegetation",
}
CLASSES = (
    LegendClass(id=1, name="built_up", color="#d7301f"),
    LegendClass(id=3, name="bare", color="#d8b365"),
    LegendClass(id=4, name="tree", color="#1b7837", group="vegetation"),
    LegendClass(id=5, name="low_vegetation", color="#a6d96a", group="vegetation"),
    LegendClass(id=6, name="water", color="#2b8cbe"),
)
DATA = TrainingData(
    name="Harmonized Landsat Sentinel-2 (HLS), 141 tiles, with ESA WorldCover for labels",
    license="CC-BY-4.0",
    attribution="NASA HLS; ESA WorldCover project / Contains modified Copernicus Sentinel data",
)
DESCRIPTION = (
    "Land cover from multispectral reflectance of 10 to 30 m (Sentinel-2, Landsat), trained on 30 m tiles with ESA "
    "WorldCover for labels."
)
LIMITATIONS = (
    "Labels are WorldCover's, another model's answer for another date: scores are of agreement with it. Built-up and "
    "bare ground are rare in the tiles and often wrong: it calls bright fields built-up, and hedges with their fields "
    "trees. Clouds are not a class: mask them."
)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    Training.of(config_of(args.data, args.steps)).run(args.out, resume=args.resume)


def config_of(data: Path, steps: int) -> TrainConfig:
    """The training that the bundle comes from."""
    return TrainConfig(
        name="landcover-ms",
        description=DESCRIPTION,
        license="Apache-2.0",
        limitations=LIMITATIONS,
        classes=CLASSES,
        bands=tuple(BANDS),
        pool_to_m=20,
        scenes=tuple(sources(data)),
        split=SplitConfig(by="scenes"),
        network=Architecture(
            name="unet", args={"encoder": "tu-resnet18", "depth": 3, "decoder_channels": [64, 48, 32]}
        ),
        loss=LossConfig(class_weights="data"),
        augment=AugmentConfig(scale=2, brightness=0.05, contrast=0.2, gamma=0.15, haze=0.1, elastic=0),
        run=RunConfig(steps=steps, batch=12, chip=96, validate_every=200, validation_chips=96, balance=0.5),
    )


def sources(data: Path) -> list[LabelledSource]:
    """The tiles with their labels; those of a group are on one side."""
    with (data / "tiles.csv").open() as file:
        groups = {int(row["tile"]): int(row["overlap_group"]) for row in csv.DictReader(file)}
    held = sorted(set(groups.values()))[::EVERY]
    return [
        LabelledSource(
            scene=str(data / f"t{tile:03d}.tif"),
            labels=str(data / f"t{tile:03d}_worldcover.png"),
            map=WORLDCOVER,
            ignore=("0", "70", "95"),
            role="validate" if group in held else "train",
            bands=BANDS,
            nodata=-9999,
            gsd_m=GSD_M,
            data=DATA,
        )
        for tile, group in groups.items()
    ]


if __name__ == "__main__":
    main()
