"""train(): from a config to a bundle.

config ──open──▶ labelled scenes ──split──▶ two sides ──draw──▶ samples ──fit──▶ averaged weights ──measure──▶ bundle

`Training.of` settles all that can be wrong with the data before the first step; `run` does the rest and can be resumed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from geoseg.errors import InputError
from geoseg.models import Model, ModelCard, build_network
from geoseg.models.architectures import DETECTORS
from geoseg.raster.disk import disk_errors, locked_folder, partial_folder, publish_bytes
from geoseg.raster.labels import LabelCodes
from geoseg.training.augment import Augmentation
from geoseg.training.config import DEFAULT_NETWORK, TrainConfig, load_config
from geoseg.training.finetune import Fitted, architecture_of, start_from
from geoseg.training.first_card import first_card, stride_of
from geoseg.training.instances import DetectionTask, with_anchors
from geoseg.training.loop import fit, read_checkpoint
from geoseg.training.losses import FocalLoss, LovaszSoftmax, PartialCrossEntropy, SoftDice
from geoseg.training.publish import HALO_CHIPS, publish
from geoseg.training.samples import Samples, Source
from geoseg.training.scenes import BandStatistics, ReaderScene, band_statistics, check_same_unit, open_scene_of
from geoseg.training.semisupervised import ConsistencyTask, Paired, TwoViews, open_unlabelled, places_of
from geoseg.training.sides import Side, check_classes, codes_of, judged, split_scenes
from geoseg.training.task import Schedule, SegmentationTask
from geoseg.training.watch import BEST, LAST, History, Progress, Watch

log = logging.getLogger(__name__)
CONFIG = "config.yaml"
MOST_PLACES = 8  # held-out places that have scores of their own
FREE = ("steps", "patience", "loaders", "device", "log")  # of `run`: may change when a training goes on


@dataclass(frozen=True)
class Trained:
    """What a training gave.

    Attributes:
        model: as stored.
        folder: of the bundle.
        history: losses and scores by step.
        codes: what labels stand for.
        confusion: (code, channel) pixels of the validation chips, by the weights that are kept.
    """

    model: Model
    folder: Path
    history: History
    codes: LabelCodes
    confusion: Any

    @property
    def scores(self) -> dict[str, float]:
        """IoU on the validation chips by the kept weights, of the classes and groups that have labels there."""
        members = dict(zip(self.codes.names, map(set, self.codes.members), strict=True))
        labelled = [name for name, pixels in zip(members, self.confusion.sum(1), strict=True) if pixels]
        best = self.history.rows[self.history.best]
        return {
            name: best[f"iou_{name}"] for name in members if any(members[other] <= members[name] for other in labelled)
        }


@dataclass(frozen=True)
class Training:
    """A training, settled before it starts: scenes are open, labels read and split, nothing is fitted yet.

    Attributes:
        config: as given, with the network settled.
        codes: what labels stand for.
        train: what is trained on.
        validate: what is held out.
        statistics: of the bands, over what is trained on.
        unlabelled: scenes without labels, and where they may be looked at.
    """

    config: TrainConfig
    codes: LabelCodes
    train: Side
    validate: Side
    statistics: BandStatistics
    unlabelled: Side | None = None

    @classmethod
    def of(cls, config: TrainConfig) -> Training:
        """Open, split and check.

        Raises:
            InputError: scenes, labels, split or network cannot be used; the message says which and what to do.
        """
        start = config.start.weights
        config = config.with_network((architecture_of(start) if start else None) or DEFAULT_NETWORK)
        detects = config.architecture.name in DETECTORS
        scenes = [open_scene_of(source, config.bands, config.legend, apart=detects) for source in config.scenes]
        more = [] if config.unlabelled is None else config.unlabelled.scenes
        others = [open_unlabelled(source, config.bands, config.legend) for source in more]
        check_same_unit([*scenes, *others])
        codes = codes_of(scenes)
        train, validate, others = split_scenes(config, scenes, others, len(codes.names))
        check_classes(codes, train, validate)
        statistics = band_statistics(train.scenes, train.cells, seed=config.run.seed)
        unlabelled = Side.of_pairs(places_of(others, train.scenes)) if others else None
        found = cls(config, codes, train, validate, statistics, unlabelled)
        if detects:
            found = replace(found, config=with_anchors(config, train.scenes, found.network(), found.gsd_range_m))
        found.check_network()
        return found

    def check_network(self) -> None:
        """Build the network once, so that what is wrong with it shows.

        Raises:
            InputError: it is unknown, its weights cannot be had, or the chip does not fit it.
        """
        run, network = self.config.run, self.network()
        stride = stride_of(network)
        if run.chip % stride:
            near = max(stride, run.chip // stride * stride)
            raise InputError(f"run.chip {run.chip} is no multiple of the network's output stride {stride}; use {near}.")
        self.fitted.hold_still(network)
        self.fitted.groups(network, run.learning_rate)

    @property
    def fitted(self) -> Fitted:
        return Fitted(self.config.start.freeze, self.config.start.decay, self.config.run.weight_decay)

    @property
    def gsd_range_m(self) -> tuple[float, float]:
        """Resolutions that samples are drawn at."""
        own = [max(scene.gsd_m, self.config.pool_to_m or 0.0) for scene in self.train.scenes]
        scale = self.config.augment.scale
        return min(own) / scale, max(own) * scale

    def network(self) -> nn.Module:
        """With the weights that the training starts from."""
        config, kind = self.config, self.config.architecture
        torch.manual_seed(config.run.seed)
        network = build_network(
            kind.name, bands=len(config.bands), classes=len(config.legend.classes), args=dict(kind.args)
        )
        if not any(True for _ in network.parameters()):
            raise InputError(f"Architecture {kind.name!r} has no weights to train; name another.")
        if config.start.weights is not None:
            start_from(network, config.start.weights, bands=config.bands, legend=config.legend)
        return network.train().to(memory_format=torch.channels_last)  # oneDNN is faster so

    def samples(self, first: int = 0) -> Samples:
        """Of the whole training, from a number on."""
        return self._samples(self.train, self.config.run.seed, self.config.run.balance, first)

    def dataset(self, samples: Samples) -> Samples | Paired:
        """Samples, and with them as many views of unlabelled scenes, where there are any."""
        stated = self.config.unlabelled
        if self.unlabelled is None or stated is None:
            return samples
        others = self._samples(self.unlabelled, self.config.run.seed + 2, 0.0, samples.first)
        return Paired(samples, TwoViews(others, stated.strength))

    def _samples(self, side: Side, seed: int, balance: float, first: int) -> Samples:
        run = self.config.run
        source = Source(side.scenes, 1.0, self.gsd_range_m, side.cells, [scene.weight for scene in side.scenes])
        count = run.steps * run.batch
        return Samples([source], run.chip, count, seed, self._augmentation, balance=balance, first=first)

    def validation_samples(self) -> Samples:
        """The same at each look, with flips and right angles only."""
        run = self.config.run
        source = Source(self.validate.scenes, 1.0, self.gsd_range_m, self.validate.cells)
        still = Augmentation.none(self._levels)
        return Samples([source], run.chip, run.validation_chips, run.seed + 1, still, balance=run.balance)

    def task(self, told: Callable[[int], str]) -> SegmentationTask:
        """The network, its losses and its schedule."""
        run, stated = self.config.run, self.config.unlabelled
        kind: Any = SegmentationTask if stated is None else partial(ConsistencyTask, stated)
        if self.config.architecture.name in DETECTORS:
            kind = DetectionTask
        task: SegmentationTask = kind(
            self.network(),
            self._losses(),
            Schedule(run.steps, min(run.warmup, max(1, run.steps // 5)), run.decay, run.learning_rate),
            mean=self.statistics.mean,
            std=self.statistics.std,
            fitted=self.fitted,
            average=run.average,
            mix=self.config.augment.mix,
            seed=run.seed,
            told=told,
        )
        return task

    def run(
        self,
        out: Path,
        *,
        resume: bool = False,
        scores_of: ModelCard | None = None,
        before: Callable[[], None] | None = None,
        progress: Progress | None = None,
    ) -> Trained:
        """Fit, keep the best averaged weights, and publish them.

        Args:
            out: folder of the training; the bundle is a folder in it.
            resume: go on from the last checkpoint there.
            scores_of: the card of a model that saw less: its scores and temperature are stated, and nothing is judged.
            before: called once the folder is this training's own, before the first step.
            progress: called with step, pixels done and pixels in all.

        Raises:
            InputError: the folder holds another training, or one that runs, or the checkpoint cannot be read.
            GeosegError: the loss is no number, or reading or writing failed; what was kept is in the folder.
        """
        with disk_errors("making the folder of the training", out.parent):
            out.parent.mkdir(parents=True, exist_ok=True)
        with locked_folder(partial_folder(out)):
            self._open_folder(out, resume=resume)
            if resume and not (out / LAST).exists():
                log.warning("%s holds no checkpoint to go on from: the training starts from its first step.", out)
            if before is not None:
                before()
            return self._run(out, resume, scores_of, progress)

    def _run(self, out: Path, resume: bool, scores_of: ModelCard | None, progress: Progress | None) -> Trained:
        run = self.config.run
        last = out / LAST
        kept = read_checkpoint(last) if resume and last.exists() else None
        done = 0 if kept is None else int(kept["global_step"])
        samples = self.samples(done * run.batch)
        watch = Watch(self.validation_samples(), self.codes, run, out, progress or _silent)
        task = self.task(samples.told)
        if done < run.steps:
            fit(run, task, self.dataset(samples), watch, last if done else None)
        elif kept is not None:
            watch.load_state_dict(kept["callbacks"][watch.state_key])
        best = load_file(out / BEST)
        task.average.module.load_state_dict(best)
        model = Model(task.average.module.cpu().eval(), self.card(watch.history.best_step))
        folder = out / self.config.name
        names, coarse = judged(self.codes, self.validate.pixels)
        places = _places(self.validate.scenes)
        halo_chips = min(HALO_CHIPS, run.validation_chips)
        published = publish(
            model, folder, places=places, names=names, coarse=coarse, halo_chips=halo_chips, scores_of=scores_of
        )
        publish_bytes(folder / CONFIG, self.config.with_paths(lambda text: Path(text).name).to_yaml().encode())
        return Trained(published, folder, watch.history, self.codes, watch.confusion)

    def card(self, steps: int) -> ModelCard:
        """What is known of the bundle before it is measured."""
        return first_card(self.config, self.network(), self.train.scenes, self.statistics, self.gsd_range_m, steps)

    @property
    def _levels(self) -> tuple[tuple[float, float], ...]:
        """None for bytes, beyond whose ends nothing is measured."""
        return () if all(scene.reader.dtype == "uint8" for scene in self.train.scenes) else self.statistics.levels

    @property
    def _augmentation(self) -> Augmentation:
        stated = self.config.augment.model_dump(exclude={"scale", "mix"})
        bands = self.config.bands
        colors = tuple(bands.index(name) for name in ("red", "green", "blue") if name in bands)
        if len(colors) < 3:
            return Augmentation(**stated | {"shadow": 0.0}, colors=(), levels=self._levels)
        return Augmentation(**stated, colors=colors, levels=self._levels)

    def _losses(self) -> list[tuple[float, nn.Module]]:
        stated, codes = self.config.loss, self.codes
        members, classes, weights = codes.members, len(codes.legend.classes), self._class_weights()
        all_of_them: list[tuple[float, nn.Module]] = [
            (stated.cross_entropy, PartialCrossEntropy(members, classes, weights)),
            (stated.dice, SoftDice(classes)),
            (stated.focal, FocalLoss(members, classes, gamma=stated.gamma, weights=weights)),
            (stated.lovasz, LovaszSoftmax(classes)),
        ]
        return [(weight, loss) for weight, loss in all_of_them if weight]

    def _class_weights(self) -> list[float] | None:
        """One per label code: as stated, or one over the root of its share, so that rare classes count for more."""
        stated = self.config.loss.class_weights
        if stated is None:
            return None
        if isinstance(stated, dict):
            return [stated.get(name, 1.0) for name in self.codes.names]
        pixels = np.maximum(self.train.pixels.astype(float), 1.0)
        weights = 1 / np.sqrt(pixels)
        held = self.train.pixels > 0
        return [float(weight) for weight in np.where(held, weights / weights[held].mean(), 1.0)]

    def _open_folder(self, out: Path, *, resume: bool = False) -> None:
        """Make the folder of the training, with the config in it, or refuse one that holds another.

        Raises:
            InputError: it holds a training that is not to go on, or one of another config.
        """
        with disk_errors("making the folder of the training", out.parent):
            out.mkdir(parents=True, exist_ok=True)
        stated = out / CONFIG
        check_folder(out, resume=resume)
        if stated.exists() and _bound(load_config(stated)) != _bound(self.config):
            raise InputError(
                f"{out} holds a training of another config ({stated}); go on with that one, or give another folder."
            )
        publish_bytes(stated, self.config.to_yaml().encode())


def check_folder(out: Path, *, resume: bool) -> None:
    """Refuse a folder that holds a training which is not to go on.

    Raises:
        InputError: with the remedy.
    """
    if (out / LAST).exists() and not resume:
        raise InputError(f"{out} holds a training; give another folder, or --resume to go on with it.")


def _places(scenes: Sequence[ReaderScene]) -> dict[str, list[ReaderScene]]:
    """Scenes by place; all together where the places are too many for a card."""
    names = dict.fromkeys(scene.place for scene in scenes)
    if len(names) > MOST_PLACES:
        return {"held out": list(scenes)}
    return {name: [scene for scene in scenes if scene.place == name] for name in names}


def _bound(config: TrainConfig) -> TrainConfig:
    """What must be the same when a training goes on."""
    default = type(config.run)()
    return config.model_copy(
        update={"run": config.run.model_copy(update={name: getattr(default, name) for name in FREE})}
    )


def _silent(step: str, done: int, total: int) -> None:
    """No progress is shown."""
