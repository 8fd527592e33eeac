"""What makes land cover better where nothing was seen? `python benchmarks/levers.py DATA --out DIR`

DATA holds `flair/` (aerial zones), `dubai/` (satellite tiles) and `california/` (aerial chips without labels). It runs
the recipe of `landcover-rgb` from scratch, for few steps, with one aerial zone and one tile left out. Both are then
judged whole, at their own resolution; nothing is chosen by them: the weights are those of the last step.

    python benchmarks/levers.py DATA --out DIR               what the recipe does, one change at a time
    python benchmarks/levers.py DATA --out DIR --folds       the recipe as it is, each zone and each tile left out once

Trainings that are in DIR already are not repeated. `--steps 30000 --batch 64 --chip 256 --loaders 15` is for a GPU.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

import geoseg
from geoseg.legend import LANDCOVER
from geoseg.models import Model, build_network
from geoseg.raster.labels import LabelCodes
from geoseg.raster.reader import SceneOptions
from geoseg.training.augment import Augmentation
from geoseg.training.config import LabelledSource, RunConfig, SceneSource, TrainConfig, UnlabelledConfig
from geoseg.training.publish import judge
from geoseg.training.recipes.landcover_rgb import BANDS, MADE_WEIGHT, NETWORK, config_of, made_scenes, real_sources
from geoseg.training.recipes.pack import coarser
from geoseg.training.samples import Samples, Source
from geoseg.training.scenes import LabelledScene, open_scene_of
from geoseg.training.train import Training

NAMES = ("building", "paved", "bare", "vegetation", "water")
FOLDS = (("B", 4), ("A", 1), ("C", 3), ("E", 6), ("", 8))  # aerial zone and satellite tile left out
PATCH, HIDDEN = 16, 0.5  # side of what is hidden from a masked start, and its share
MADE = 24  # synthetic scenes

Fold = tuple[str, int]
Scores = dict[str, dict[str, float]]  # by place, then by class
Change = Callable[[TrainConfig, "Bench", int], TrainConfig]


@dataclass(frozen=True)
class Bench:
    """Where things are, and how long trainings are."""

    data: Path
    out: Path
    run: Mapping[str, Any]

    def sources(self, fold: Fold) -> tuple[list[LabelledSource], list[LabelledSource]]:
        """What is trained on, its zones at 0.3 m, and what was left out, as it came."""
        zone, tile = f"zone_{fold[0]}_", f"tile{fold[1]}_"
        real = [source.model_copy(update={"role": "train"}) for source in real_sources(self.data)]
        held = [one for one in real if zone in str(one.scene) or tile in str(one.scene)]
        made = made_scenes(self.out / "synthetic", MADE, weight=MADE_WEIGHT)
        return [*(self._smaller(one) for one in real if one not in held), *made], held

    def california(self) -> list[Path]:
        return sorted(path for path in (self.data / "california").glob("*_20??.tif"))

    def _smaller(self, source: LabelledSource) -> LabelledSource:
        scene, labels = Path(str(source.scene)), Path(str(source.labels))
        if scene.suffix != ".tif":
            return source
        folder = self.out / "coarser"
        folder.mkdir(parents=True, exist_ok=True)
        for path in (scene, labels):
            if not (folder / path.name).exists():
                coarser(path, folder / path.name)
        return source.model_copy(update={"scene": str(folder / scene.name), "labels": str(folder / labels.name)})

    def config(self, fold: Fold, seed: int) -> TrainConfig:
        """The recipe's; what it validates with during the training is one image, by which nothing is chosen."""
        train, held = self.sources(fold)
        watched = held[-1].model_copy(update={"role": "validate"})
        run = RunConfig(seed=seed, decay=0.35, validation_chips=8, **self.run)
        config = config_of([*train, watched], run, None, "1")
        return config.model_copy(update={"run": run.model_copy(update={"validate_every": run.steps})})

    def folder(self, name: str, fold: Fold, seed: int) -> Path:
        return self.out / f"{name.replace(' ', '-')}-{fold[0]}{fold[1]}-{seed}-{self.run['steps']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--chip", type=int, default=192)
    parser.add_argument("--loaders", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--folds", action="store_true", help="leave each place out once")
    parser.add_argument("--only", nargs="+", metavar="LEVER", help=f"of {', '.join(LEVERS)}")
    given = parser.parse_args()
    run = {name: getattr(given, name) for name in ("steps", "batch", "chip", "loaders")}
    bench = Bench(given.data, given.out, run)
    found: dict[str, list[tuple[Fold, Scores]]] = {}
    for seed in range(given.seeds):
        names = [AS_IS] if given.folds else given.only or list(LEVERS)
        for name in names:
            for fold in FOLDS if given.folds else FOLDS[:1]:
                found.setdefault(name, []).append((fold, result(bench, name, fold, seed)))
                print(fold_table(found[name]) if given.folds else lever_table(found), flush=True)


def result(bench: Bench, name: str, fold: Fold, seed: int) -> Scores:
    """IoU of coarse classes and overall accuracy, by place."""
    folder = bench.folder(name, fold, seed)
    kept = folder / "result.json"
    if not kept.exists():
        config = LEVERS[name](bench.config(fold, seed), bench, seed)
        trained = Training.of(config).run(folder, resume=True)
        _, held = bench.sources(fold)
        scenes = [open_scene_of(source, config.bands, LANDCOVER) for source in held]
        places = {"FLAIR": [s for s in scenes if "zone_" in s.name], "Dubai": [s for s in scenes if "tile" in s.name]}
        kept.write_text(json.dumps({place: judged(trained.model, own) for place, own in places.items() if own}))
    found: Scores = json.loads(kept.read_text())
    print(folder.name, found, flush=True)
    return found


def judged(model: Model, scenes: Sequence[LabelledScene]) -> dict[str, float]:
    scores, _ = judge(model, scenes, NAMES, coarse)
    return scores


def coarse(codes: NDArray[np.integer]) -> NDArray[np.int16]:
    """Index in NAMES of label codes and of channels; negative where unlabelled."""
    names = LabelCodes.of(LANDCOVER).names
    table = np.full(256, -1, np.int16)
    for code, name in enumerate(names):
        table[code] = NAMES.index(name) if name in NAMES else NAMES.index("vegetation")
    return table[np.asarray(codes)]


def changed(part: str, **values: object) -> Change:
    """A lever that is a value of the config."""

    def change(config: TrainConfig, bench: Bench, seed: int) -> TrainConfig:
        return config.model_copy(update={part: getattr(config, part).model_copy(update=values)})

    return change


def as_is(config: TrainConfig, bench: Bench, seed: int) -> TrainConfig:
    return config


def without_synthetic(config: TrainConfig, bench: Bench, seed: int) -> TrainConfig:
    folder = str(bench.out / "synthetic")
    kept = tuple(source for source in config.scenes if not str(source.scene).startswith(folder))
    return config.model_copy(update={"scenes": kept})


def longer(factor: float) -> Change:
    """Steps, times a factor."""

    def change(config: TrainConfig, bench: Bench, seed: int) -> TrainConfig:
        steps = round(config.run.steps * factor)
        run = config.run.model_copy(update={"steps": steps, "validate_every": steps})
        return config.model_copy(update={"run": run})

    return change


def consistent(config: TrainConfig, bench: Bench, seed: int) -> TrainConfig:
    """And the chips of California without labels."""
    others = tuple(SceneSource(scene=str(path), bands=BANDS) for path in bench.california())
    return config.model_copy(update={"unlabelled": UnlabelledConfig(scenes=others, ramp_steps=config.run.steps // 3)})


def with_pseudo_labels(config: TrainConfig, bench: Bench, seed: int) -> TrainConfig:
    """And the chips of California with what the recipe's model of this seed is sure of."""
    teacher = bench.folder(AS_IS, FOLDS[0], seed) / config.name
    made = []
    for path in bench.california():
        labels = bench.folder("pseudo-labels", FOLDS[0], seed).with_suffix(".made") / path.name
        labels.parent.mkdir(parents=True, exist_ok=True)
        reading = SceneOptions(bands=BANDS)
        if any(geoseg.pseudo_label(path, labels, model=teacher, reading=reading, overwrite=True).kept.kept):
            made.append(LabelledSource(scene=str(path), labels=str(labels), bands=BANDS))
    return config.model_copy(update={"scenes": (*config.scenes, *made)})


def masked_start(config: TrainConfig, bench: Bench, seed: int) -> TrainConfig:
    """From a network that has learned, in as many steps, to paint what is hidden of all imagery, labels unseen.

    Masked image modelling in the manner of SimMIM (Xie et al. 2022, arXiv:2111.09886), with the whole U-Net.
    """
    start = bench.folder("masked start", FOLDS[0], seed) / "start.safetensors"
    if not start.exists():
        start.parent.mkdir(parents=True, exist_ok=True)
        paint(Training.of(consistent(config, bench, seed)), start)
    return config.model_copy(update={"start": config.start.model_copy(update={"weights": str(start)})})


def paint(training: Training, out: Path) -> None:
    """Fit a network of as many channels as bands to hidden squares, and keep all of it but its last layer."""
    config, side = training.config, training.unlabelled
    assert side is not None
    run, bands, reach = config.run, len(config.bands), training.gsd_range_m
    sources = [Source(own.scenes, weight, reach, own.cells) for own, weight in ((training.train, 0.8), (side, 0.2))]
    samples = Samples(sources, run.chip, run.steps * run.batch, run.seed + 7, Augmentation(), balance=0.0)
    torch.manual_seed(run.seed)
    network = build_network("unet", bands=bands, classes=bands, args=dict(NETWORK)).train()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), run.learning_rate, weight_decay=run.weight_decay)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, run.learning_rate, total_steps=run.steps)
    mean, std = (torch.tensor(part)[:, None, None] for part in (training.statistics.mean, training.statistics.std))
    for pixels, _ in DataLoader(samples, run.batch, num_workers=run.loaders):
        chips = ((pixels - mean) / std).nan_to_num(0.0).to(device)
        hidden = squares(len(chips), run.chip).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            painted = network(chips * ~hidden)
        loss = ((painted.float() - chips).abs() * hidden).sum() / (hidden.sum() * bands)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), run.clip)
        optimizer.step()
        rate.step()
    print(f"hidden squares are painted to within {float(loss.detach()):.3f} standard deviations", flush=True)
    state = network.cpu().state_dict()
    last = list(state)[-1].rpartition(".")[0]
    save_file({name: part.contiguous() for name, part in state.items() if not name.startswith(last)}, out)


def squares(count: int, side: int) -> Tensor:
    """(sample, 1, side, side): True where a square of the chip is hidden."""
    hidden = torch.rand(count, 1, -(-side // PATCH), -(-side // PATCH)) < HIDDEN
    return hidden.repeat_interleave(PATCH, -2).repeat_interleave(PATCH, -1)[..., :side, :side]


AS_IS = "the recipe"
LEVERS: dict[str, Change] = {
    AS_IS: as_is,
    "half the steps": longer(0.5),
    "twice the steps": longer(2),
    "no synthetic scenes": without_synthetic,
    "no CutMix": changed("augment", mix=0.0),
    "no shadows": changed("augment", shadow=0.0),
    "colors changed more": changed("augment", brightness=0.2, contrast=0.6, gamma=0.6, band_gain=0.2),
    "one scale": changed("augment", scale=1.0),
    "scales of 0.5 to 2": changed("augment", scale=2.0),
    "Lovasz for Dice": changed("loss", dice=0.0, lovasz=0.5),
    "no class weights": changed("loss", class_weights=None),
    "balanced windows": changed("run", balance=0.7),
    "no average": changed("run", average=0.0),
    "masked start": masked_start,
    "consistency": consistent,
    "pseudo-labels": with_pseudo_labels,
}


def lever_table(found: Mapping[str, Sequence[tuple[Fold, Scores]]]) -> str:
    """Of each lever the mean over seeds, and by how much the mean IoU of both places differs from the recipe's."""
    places, titles = ("FLAIR", "Dubai"), ("building", "paved", "vegetation", "overall_accuracy")
    heads = [f"{place} {title.replace('_', ' ')}" for place in places for title in titles]
    lines = [
        f"| | {' | '.join(heads)} | mean IoU | over the recipe's, by seed |",
        f"|---|{'---|' * (len(heads) + 2)}",
    ]
    base = [mean_iou(scores) for _, scores in found.get(AS_IS, ())]
    for name, runs in found.items():
        means = [np.mean([scores[place][title] for _, scores in runs]) for place in places for title in titles]
        own = [mean_iou(scores) for _, scores in runs]
        gains = [f"{a - b:+.3f}" for a, b in zip(own, base, strict=False)] if name != AS_IS else []
        told = ", ".join(gains or [f"{one:.3f}" for one in own])
        lines.append(f"| {name} | {' | '.join(f'{one:.2f}' for one in means)} | {np.mean(own):.3f} | {told} |")
    return "\n".join(lines)


def mean_iou(scores: Scores) -> float:
    """Over the classes of both places, those that a place lacks left out."""
    return float(np.mean([value for own in scores.values() for key, value in own.items() if key in NAMES]))


def fold_table(runs: Sequence[tuple[Fold, Scores]]) -> str:
    """Of each place left out, the mean over seeds."""
    titles = (*NAMES, "overall_accuracy")
    lines = [f"| left out | {' | '.join(titles)} |", f"|---|{'---|' * len(titles)}"]
    by_place: dict[str, list[dict[str, float]]] = {}
    for (zone, tile), scores in runs:
        for place, found in scores.items():
            by_place.setdefault(f"FLAIR zone {zone}" if place == "FLAIR" else f"Dubai tile {tile}", []).append(found)
    for place, all_of_it in sorted(by_place.items(), reverse=True):
        cells = [f"{np.mean([one[t] for one in all_of_it]):.2f}" if t in all_of_it[0] else "" for t in titles]
        lines.append(f"| {place} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
