"""Train a Mask R-CNN for buildings, which does not ship (see `benchmarks/RESULTS.md`).

`python -m geoseg.training.recipes.buildings_rgb --data DIR --out DIR --init MODEL`
Scenes and held-out places are those of `landcover_rgb`: FLAIR and Dubai without zone B and tile 4, and synthetic
scenes. Objects are the connected parts of the class building. The encoder starts from that of MODEL, which must not
have seen the held-out places either if they are to be judged. Run again with the same --out to go on; the bundle is
`buildings-rgb/` in it.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from geoseg.legend import Legend, LegendClass
from geoseg.models import Architecture, Model, ModelCard, build_network
from geoseg.training.augment import Augmentation
from geoseg.training.finetune import start_from
from geoseg.training.instances import DetectionTask
from geoseg.training.losses import IGNORE, PartialCrossEntropy
from geoseg.training.publish import publish
from geoseg.training.recipes import landcover_rgb
from geoseg.training.samples import ArrayScene, Samples, Source
from geoseg.training.task import Schedule

LEGEND = Legend(
    classes=(
        LegendClass(id=1, name="building", color="#d7301f"),
        LegendClass(id=2, name="other", color="#dcdcc8"),
    )
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
    """Read the command line, train, measure, and write the bundle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--init", required=True, help="bundle whose encoder to start from")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--chip", type=int, default=256)
    parser.add_argument("--synthetic", type=int, default=12, help="number of synthetic scenes in the mix")
    parser.add_argument("--loaders", type=int, default=0, help="loader processes")
    parser.add_argument("--rate", type=float, default=5e-4, help="learning rate")
    args = parser.parse_args()
    seed_everything(1)
    last = args.out / "last.ckpt"
    done = torch.load(last, weights_only=False)["global_step"] if last.exists() else 0
    scenes = [of_buildings(source) for source in landcover_rgb.sources(args.data, args.synthetic, everywhere=False)]
    samples = Samples(
        scenes, args.chip, args.steps * args.batch, 1, Augmentation(), balance=0.5, first=done * args.batch
    )
    network = build_network("mask-rcnn", bands=3, classes=len(LEGEND.classes), args=NETWORK)
    start_from(network, args.init, bands=("red", "green", "blue"), legend=LEGEND)
    schedule = Schedule(args.steps, warmup=50, decay=0.4, learning_rate=args.rate)
    mean, std = landcover_rgb.MEAN, landcover_rgb.STD
    loss = PartialCrossEntropy([(0,), (1,)], 2)
    task = DetectionTask(network.train(), [(1.0, loss)], schedule, mean=mean, std=std, average=0.99)
    trainer = Trainer(
        max_steps=args.steps,
        max_epochs=1,
        gradient_clip_val=5.0,
        logger=False,
        callbacks=[
            ModelCheckpoint(
                args.out, filename="step", every_n_train_steps=50, save_last=True, enable_version_counter=False
            )
        ],
        enable_progress_bar=False,
    )
    loader = DataLoader(samples, args.batch, num_workers=args.loaders)
    trainer.fit(task, loader, ckpt_path=last if last.exists() else None, weights_only=False)
    model = Model(task.average.module.cpu().eval(), card(trainer.global_step, args.synthetic, args.init))
    places = {
        place: [_of_buildings(scene) for scene in held] for place, held in landcover_rgb.held_out(args.data).items()
    }
    publish(model, args.out / "buildings-rgb", places=places, names=LEGEND.names, coarse=coarse)


def card(steps: int, synthetic: int, init: str) -> ModelCard:
    """What is known of the bundle before it is measured."""
    base = landcover_rgb.card("1", steps, synthetic, init, everywhere=False)
    return base.model_copy(
        update={
            "name": "buildings-rgb",
            "description": f"Buildings from RGB imagery of 0.05 to 1.2 m. Mask R-CNN on resnet18, {steps:,} steps.",
            "architecture": Architecture(name="mask-rcnn", args=NETWORK),
            "legend": LEGEND,
            "output_stride": 32,
            "chip_px": 512,
            "position_independent": False,
            "limitations": LIMITATIONS,
        }
    )


def of_buildings(source: Source) -> Source:
    """A source whose labels tell buildings from all else."""
    return replace(source, scenes=[_of_buildings(scene) for scene in source.scenes])


def _of_buildings(scene: object) -> ArrayScene:
    assert isinstance(scene, ArrayScene)
    table = np.full(256, 1, np.uint8)
    table[landcover_rgb.CODES["building"]], table[IGNORE] = 0, IGNORE
    return replace(scene, labels=table[scene.labels])


def coarse(codes: object) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    """Index in the legend of label codes and channels; -1 where unknown."""
    table = np.full(256, -1, np.int16)
    table[:2] = [0, 1]
    indices: np.ndarray[tuple[int, ...], np.dtype[np.int16]] = table[np.asarray(codes)]
    return indices


if __name__ == "__main__":
    main()
