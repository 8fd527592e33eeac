"""Train the bundle `prompt-rgb`: `python -m geoseg.prompts.recipe --data DIR --out DIR --minutes 50`.

DIR holds `flair/` and `dubai/`, as for `landcover-rgb`; synthetic scenes join the mix. It starts from encoder and
decoder of `landcover-rgbn` 1, or with `--init` from a bundle of its own. Every part of every class is an object to be
found from a click, a box, or both, and from clicks where the answer is wrong. Zone B and tile 4 are held out. The rate
of learning falls with the time that was given; run again with the same --out to go on. The bundle is `prompt-rgb/`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import cos, isnan, pi
from pathlib import Path

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from geoseg.grid import Window
from geoseg.legend import LANDCOVER
from geoseg.models import Architecture, Model, ModelCard, TrainingData, load_model, save_model
from geoseg.models.promptable import Masks, Promptable
from geoseg.prompts.judge import HEADER, Judged, Scene, judge, means, rows
from geoseg.prompts.networks import BundleNetwork
from geoseg.prompts.parts import LEAST, PartChips, PartScene, PartSource
from geoseg.prompts.sam import OBJECT
from geoseg.prompts.simulate import corrected, first_prompts
from geoseg.raster.georeference import ignore_not_georeferenced
from geoseg.synthetic import SyntheticScene
from geoseg.training.augment import Augmentation

CHIP = 160  # small, so that many are seen in little time
START = "landcover-rgbn"  # that of version 1: later ones have learned from the places that are held out
HELD_OUT = ("zone_B", "tile4")
DUBAI_GSD_M = 0.7
# Shares of the classes among the parts that chips are drawn for.
_SURFACES, _WATER, _TREES = {2: 0.4, 3: 0.4, 4: 0.4}, {5: 1.0, 13: 1.0}, {6: 1.0, 7: 2.0}
FLAIR = {1: 4.0, 18: 0.3} | _SURFACES | _WATER | _TREES | {8: 0.5, 9: 1.0, 10: 0.7, 11: 0.8, 12: 0.5}
DUBAI = {1: 0.4, 2: 3.0, 3: 0.4, 4: 2.0, 5: 1.0}
SYNTHETIC = {"building": 3.0, "paved": 0.4, "bare": 0.4, "tree": 2.0, "low_vegetation": 0.7, "water": 1.0}
KINDS = {"point": 0.55, "box": 0.35, "both": 0.10}
MORE_CLICKS = 2  # at most, between the two answers that are learned from
FORGOTTEN = 0.25  # share of second answers without the earlier mask, as where many points come at once
RATE, START_RATE = 1.5e-3, 4e-4  # of new layers, and of those of the bundle started from
WARMUP = 50
AVERAGED = 0.99  # how much of the mean of the weights a step leaves
SAVED_EVERY = 200
FLAIR_KINDS = {"building": (1, 18), "tree_group": (6, 7), "water": (5,), "pool": (13,), "field": (9, 11, 12)}
DUBAI_KINDS = {"building": (2,), "tree_group": (4,), "water": (5,)}
JUDGED = 25  # objects of a kind and place
LIMITATIONS = (
    "Trained for less than an hour on two CPU cores, from two regions and synthetic scenes: boxes give the best "
    "outlines, a click alone half of an object. An object is what one label touches of itself there: buildings wall to "
    "wall are one, and so are trees whose crowns meet."
)


def main() -> None:
    """Read the command line, train, and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=50)
    parser.add_argument("--chips", type=int, default=4, help="of a step")
    parser.add_argument("--parts", type=int, default=4, help="of a chip")
    parser.add_argument("--synthetic", type=int, default=16, help="number of synthetic scenes in the mix")
    parser.add_argument("--loaders", type=int, default=1, help="loader processes")
    parser.add_argument("--init", help="bundle made by this recipe whose weights to go on from")
    parser.add_argument("--version", default="1", help="of the bundle")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    run = Run.of(args.out / "last.pt", args.minutes, args.init)
    data = sources(args.data, args.synthetic)
    chips = PartChips(data, 10**9, CHIP, args.parts, args.seed, Augmentation(elastic=0.1), first=run.step * args.chips)
    held = PartChips(held_out(args.data), 24, CHIP, args.parts, 7, Augmentation.none())
    loader = DataLoader(chips, args.chips, num_workers=args.loaders, persistent_workers=args.loaders > 0)
    for step in run.train(loader, np.random.default_rng(run.step)):
        if step % SAVED_EVERY == 0:
            told = " ".join(f"{name} {value:.3f}" for name, value in quick_look(run.judged, held).items())
            with (args.out / "held_out.log").open("a") as file:
                file.write(f"step {step} minutes {run.seconds / 60:.1f} loss {run.loss:.3f} {told}\n")
            run.save(args.out / "last.pt")
    run.save(args.out / "last.pt")
    made = card(run.step, args.synthetic, args.init or START, args.version)
    found = publish(run.judged, made, args.data, args.out / "prompt-rgb")
    lines = [line for place, judged in found.items() for line in rows(place, judged)]
    (args.out / "held_out.md").write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")


def publish(network: Promptable, made: ModelCard, data: Path, folder: Path) -> dict[str, list[Judged]]:
    """Write the bundle, with scores of what is stored on the places that were held out."""
    save_model(Model(network, made), folder)
    stored = load_model(folder)  # half precision, as everybody will have it
    asked = BundleNetwork(stored)
    found = {
        "flair B": judge(asked, [judged_flair(data)], FLAIR_KINDS, count=JUDGED, least_px=4 * LEAST),
        "dubai 4": judge(asked, judged_dubai(data), DUBAI_KINDS, count=JUDGED, least_px=LEAST),
    }
    scores = {place: means(judged) for place, judged in found.items()}
    save_model(Model(stored.network, made.model_copy(update={"scores": scores})), folder)
    return found


def card(steps: int, synthetic: int, start: str, version: str) -> ModelCard:
    """What is known of the bundle before it is measured."""
    first = load_model(start).card
    return ModelCard(
        name="prompt-rgb",
        version=version,
        description=(
            f"Objects of RGB imagery of 0.05 to 1.2 m from points and boxes. A small network in the manner of Segment "
            f"Anything, {steps:,} steps from {first.name} {first.version}. Scores are mean IoU of objects of places "
            "that were held out from these steps."
        ),
        license="Apache-2.0",
        architecture=Architecture(name="promptable"),
        scales=first.scales,
        bands=first.bands[:3],
        legend=OBJECT,
        gsd_m=0.4,
        gsd_range_m=(0.05, 1.2),
        pool_to_m=0.2,
        output_stride=16,
        receptive_field_px=CHIP,
        halo_px=0,
        chip_px=CHIP,
        fixed_chip=True,
        position_independent=False,
        training_data=(
            TrainingData(
                name="FLAIR #1, zones A, C, E", license="Licence Ouverte 2.0", attribution="IGN, FLAIR #1 / BD ORTHO"
            ),
            TrainingData(
                name="Semantic segmentation of aerial imagery, Dubai, tiles 1, 3, 6, 8",
                license="CC0 as republished by its authors",
                attribution="Mohammed Bin Rashid Space Centre; Humans in the Loop",
            ),
            TrainingData(name=f"geoseg.synthetic, {synthetic} scenes", license="Apache-2.0", attribution="geoseg"),
        ),
        limitations=LIMITATIONS,
    )


@dataclass
class Run:
    """A training, and where it is.

    Attributes:
        network: that learns.
        average: running mean of its weights.
        optimizer: of it.
        minutes: that all of it may take.
        step: done so far.
        seconds: used so far.
        loss: running mean.
    """

    network: Promptable
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    minutes: float
    step: int = 0
    seconds: float = 0.0
    loss: float = float("nan")

    @classmethod
    def of(cls, saved: Path, minutes: float, init: str | None = None) -> Run:
        """A new run, maybe from the weights of a bundle, or one that goes on."""
        network = new_network()
        if init is not None:
            network.load_state_dict(load_model(init).network.state_dict())
        average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(AVERAGED))  # type: ignore[no-untyped-call]
        old = [*network.encoder.parameters(), *network.decoder.parameters()]
        new = [p for p in network.parameters() if all(p is not q for q in old)]
        groups = [{"params": new, "share": RATE}, {"params": old, "share": START_RATE}]
        run = cls(network, average, torch.optim.AdamW(groups, lr=RATE, weight_decay=0.01), minutes)
        if saved.exists():
            state = torch.load(saved, weights_only=True)
            for name in ("network", "average", "optimizer"):
                getattr(run, name).load_state_dict(state[name])
            run.step, run.seconds = state["step"], state["seconds"]
        return run

    @property
    def judged(self) -> Promptable:
        """The network whose weights are means: the one to keep."""
        network: Promptable = self.average.module  # type: ignore[assignment]
        return network

    def save(self, path: Path) -> None:
        state = {name: getattr(self, name).state_dict() for name in ("network", "average", "optimizer")}
        torch.save(state | {"step": self.step, "seconds": self.seconds}, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)

    def train(self, loader: DataLoader[tuple[Tensor, Tensor]], rng: np.random.Generator) -> Iterator[int]:
        """The number of each step after it, until the time is over."""
        mean, std = statistics()
        started = time.perf_counter() - self.seconds
        for chips, parts in loader:
            done = self.seconds / 60 / self.minutes
            if done >= 1:
                return
            for group in self.optimizer.param_groups:
                group["lr"] = group["share"] * min(1, (self.step + 1) / WARMUP) * (0.51 + 0.49 * cos(pi * done))
            loss = loss_of(self.network, ((chips - mean) / std).nan_to_num(), halved(parts.flatten(0, 1)), rng)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimizer.step()
            self.average.update_parameters(self.network)
            self.step += 1
            self.seconds = time.perf_counter() - started
            self.loss = loss.item() if isnan(self.loss) else 0.98 * self.loss + 0.02 * loss.item()
            yield self.step


def statistics() -> tuple[Tensor, Tensor]:
    """(3, 1, 1) mean and standard deviation of red, green and blue."""
    bands = load_model(START).card.bands[:3]
    mean, std = ([getattr(band, name) for band in bands] for name in ("mean", "std"))
    return torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]


def new_network() -> Promptable:
    """With encoder and decoder of the bundle started from, but for near infrared; their statistics stay."""
    network = Promptable(3, 1)
    trained = load_model(START).network
    state = trained.encoder.state_dict()  # type: ignore[union-attr]
    first = next(name for name, weights in state.items() if weights.ndim == 4)
    state[first] = state[first][:, :3]  # near infrared goes
    network.encoder.load_state_dict(state)
    network.decoder.load_state_dict(trained.decoder.state_dict())  # type: ignore[union-attr]
    return network.eval().to(memory_format=torch.channels_last)


def loss_of(network: Promptable, chips: Tensor, parts: Tensor, rng: np.random.Generator) -> Tensor:
    """Of the first answer, and of one after some clicks; parts (part, height, width) at half the chips' size."""
    kinds = rng.choice(list(KINDS), len(parts), p=list(KINDS.values())).tolist()
    prompts = first_prompts(parts, kinds, rng)
    truth = parts.float()[:, None]
    with torch.autocast("cpu", torch.bfloat16):
        embedding = network.embed(chips)
        masks = network.decode(embedding, prompts)
        loss = candidates_loss(masks, truth)
        with torch.no_grad():
            for _ in range(rng.integers(0, MORE_CLICKS + 1)):
                prompts = corrected(prompts, masks, parts, rng)
                masks = network.decode(embedding, prompts)
            prompts = corrected(prompts, masks, parts, rng)
            if rng.random() < FORGOTTEN:
                prompts = prompts._replace(earlier=torch.zeros_like(prompts.earlier))
        masks = network.decode(embedding, prompts)
    return loss + candidates_loss(masks, truth)


def candidates_loss(masks: Masks, truth: Tensor) -> Tensor:
    """Of the best candidate, a little of all, and of the scores; truth (prompt, 1, height, width)."""
    logits = masks.logits.float()
    likely, area = logits.sigmoid(), truth.sum((2, 3))
    dice = 1 - (2 * (likely * truth).sum((2, 3)) + 1) / (likely.sum((2, 3)) + area + 1)
    entropy = binary_cross_entropy_with_logits(logits, truth.expand_as(logits), reduction="none").sum((2, 3))
    entropy = entropy / area.clamp(min=truth[0].numel() / 20)
    each = dice + entropy
    score = (masks.scores.float() - overlap(logits > 0, truth > 0.5)) ** 2
    return each.amin(1).mean() + 0.15 * each.mean() + score.mean()


def overlap(found: Tensor, truth: Tensor) -> Tensor:
    """IoU of masks (..., height, width) that are broadcast."""
    both, either = (found & truth).sum((-2, -1)), (found | truth).sum((-2, -1))
    return both / either.clamp(min=1)


def halved(parts: Tensor) -> Tensor:
    """Parts (part, height, width) at half the size, none of them empty."""
    cells = avg_pool2d(parts.float()[:, None], 2)[:, 0]
    half = cells >= 0.5
    half[~half.any(1).any(1)] |= cells[~half.any(1).any(1)] > 0
    return half


@torch.inference_mode()
def quick_look(network: Promptable, chips: PartChips) -> dict[str, float]:
    """Mean IoU at half the chip's size with one click, a box, and five clicks; first parts of chips count alike."""
    mean, std = statistics()
    found: dict[str, list[float]] = {"click": [], "box": [], "five": []}
    for number in range(len(chips)):
        pixels, parts = chips[number]
        small = halved(parts)
        embedding = network.embed(((pixels - mean) / std).nan_to_num()[None])
        for kind, name in (("box", "box"), ("point", "click")):
            prompts = first_prompts(small, [kind] * len(small), None)
            masks = network.decode(embedding, prompts)
            found[name] += best_overlap(masks, small)
        for _ in range(4):
            prompts = corrected(prompts, masks, small, None)
            masks = network.decode(embedding, prompts)
        found["five"] += best_overlap(masks, small)
    return {name: float(np.mean(values)) for name, values in found.items()}


def best_overlap(masks: Masks, parts: Tensor) -> list[float]:
    """IoU of the candidate that the network trusts most."""
    best = masks.scores.argmax(1)
    values: list[float] = overlap(masks.logits[torch.arange(len(best)), best] > 0, parts).tolist()
    return values


def sources(data: Path, synthetic: int) -> list[PartSource]:
    """All but the held-out places."""
    flair = [flair_scene(p) for p in sorted((data / "flair").glob("zone_*_rgb.tif")) if not _is_out(p)]
    dubai = [dubai_scene(p) for p in sorted((data / "dubai").glob("tile*.jpg")) if not _is_out(p)]
    made = [synthetic_scene(seed) for seed in range(1, synthetic + 1)]
    ids = {LANDCOVER.by_name(name).id: share for name, share in SYNTHETIC.items()}
    return [
        PartSource(flair, 0.42, FLAIR),
        PartSource(dubai, 0.33, DUBAI),
        *([PartSource(made, 0.25, ids)] if made else []),
    ]


def held_out(data: Path) -> list[PartSource]:
    """Buildings, tree groups, water, pools and fields of the places that are not trained on."""
    flair = PartSource([flair_scene(data / "flair" / "zone_B_rgb.tif")], 0.5, {1: 4, 5: 1, 6: 1, 7: 1, 13: 1, 11: 0.2})
    dubai = PartSource([dubai_scene(p) for p in sorted((data / "dubai").glob("tile4_*.jpg"))], 0.5, {2: 3, 4: 2, 5: 1})
    return [flair, dubai]


def judged_flair(data: Path) -> Scene:
    return Scene(data / "flair" / "zone_B_rgb.tif", _read(data / "flair" / "zone_B_labels.tif")[0])


def judged_dubai(data: Path) -> list[Scene]:
    paths = sorted((data / "dubai").glob("tile4_*.jpg"))
    return [Scene(path, _read(path.with_name(f"{path.stem}_label.png"))[0], DUBAI_GSD_M) for path in paths]


def flair_scene(path: Path) -> PartScene:
    return PartScene.of(_read(path), _read(path.with_name(path.name.replace("_rgb", "_labels")))[0], list(FLAIR), 0.2)


def dubai_scene(path: Path) -> PartScene:
    return PartScene.of(_read(path), _read(path.with_name(f"{path.stem}_label.png"))[0], list(DUBAI), DUBAI_GSD_M)


def synthetic_scene(seed: int, side: int = 1024) -> PartScene:
    gsd_m = 0.25 + 0.05 * (seed % 6)
    pixels, labels = SyntheticScene((side, side), seed=seed, gsd_m=gsd_m).read(Window(0, 0, side, side))
    return PartScene.of(pixels[:3], labels, [LANDCOVER.by_name(name).id for name in SYNTHETIC], gsd_m)


def _is_out(path: Path) -> bool:
    return any(name in path.name for name in HELD_OUT)


def _read(path: Path) -> NDArray[np.uint8]:
    with ignore_not_georeferenced(), rasterio.open(path) as dataset:
        pixels: NDArray[np.uint8] = dataset.read()
    return pixels


if __name__ == "__main__":
    main()
