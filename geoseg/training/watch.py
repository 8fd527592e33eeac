"""Watch: looks at the averaged weights now and then, keeps the best, writes the history, stops where nothing gains."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from safetensors.torch import save
from torch.utils.data import DataLoader

from geoseg.errors import GeosegError
from geoseg.raster.disk import disk_errors, publish_bytes, publish_file
from geoseg.raster.labels import LabelCodes
from geoseg.training.boundary import Targets
from geoseg.training.config import RunConfig
from geoseg.training.losses import IGNORE
from geoseg.training.metrics import averaged, hits, mean, overall_accuracy
from geoseg.training.samples import Samples
from geoseg.training.task import SegmentationTask

Counts = NDArray[np.int64]
Progress = Callable[[str, int, int], None]  # step, pixels done, pixels in all
HISTORY, LAST, BEST = "history.csv", "last.ckpt", "best.safetensors"


@dataclass
class History:
    """Losses and scores by step.

    Attributes:
        rows: of each look: step, learning_rate, loss (mean since the last), validation_loss, mean_iou,
            overall_accuracy, and IoU by class; with unlabelled scenes also consistency, a loss of its own, and
            confident, the share of their pixels that it counts, both as means since the last look.
    """

    rows: list[dict[str, float]] = field(default_factory=list)

    @property
    def best(self) -> int:
        """The look with the best mean IoU, of equals the first; -1 before the first."""
        scores = [row["mean_iou"] for row in self.rows]
        return int(np.nanargmax(scores)) if np.isfinite(scores).any() else len(scores) - 1

    @property
    def best_step(self) -> int:
        return int(self.rows[self.best]["step"])

    def to_csv(self) -> bytes:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in self.rows)
        return text.getvalue().encode()


class Watch(Callback):
    """Looks every `validate_every` steps, and after the last: scores, best weights, history, checkpoint, early stop.

    The checkpoint is written after all that, so that whoever goes on from it finds the rest in place.

    Args:
        samples: held-out chips, the same at each look.
        codes: what labels stand for.
        run: how the loop runs.
        out: folder of the training.
        progress: called with step, pixels done and pixels in all.

    Attributes:
        history: of all looks.
        confusion: (code, channel) pixels of the held-out chips, by the best weights.
        was_stopped: whether Ctrl-C ended the training.
    """

    def __init__(self, samples: Samples, codes: LabelCodes, run: RunConfig, out: Path, progress: Progress) -> None:
        self.samples, self.codes, self.run, self.out, self.progress = samples, codes, run, out, progress
        self.history = History()
        self.was_stopped = False
        self._targets = Targets(codes.members, len(codes.legend.classes))
        self.confusion: Counts = np.zeros(self._shape, np.int64)
        self._seen: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.history.rows, "confusion": self.confusion.tolist()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = History(state_dict["rows"])
        self.confusion = np.array(state_dict["confusion"], np.int64)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self._seen.append({name: float(value) for name, value in trainer.callback_metrics.items()})
        step, steps = trainer.global_step, self.run.steps
        of_a_step = self.run.batch * self.run.chip**2
        self.progress("train", step * of_a_step, steps * of_a_step)
        if step % self.run.validate_every == 0 or step == steps:
            assert isinstance(pl_module, SegmentationTask)
            self._look(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.was_stopped = isinstance(exception, KeyboardInterrupt)

    def _look(self, trainer: Trainer, task: SegmentationTask) -> None:
        counts, loss = self._compare(trainer, task)
        found, chosen = hits(counts, self._targets), averaged(counts, self._targets)
        row = {
            "step": float(trainer.global_step),
            "learning_rate": float(trainer.optimizers[0].param_groups[0]["lr"]),
            **{name: float(np.mean([seen[name] for seen in self._seen])) for name in self._seen[0]},
            "validation_loss": loss,
            "mean_iou": float(mean(found.iou, chosen)),
            "overall_accuracy": float(overall_accuracy(counts, self._targets)),
        }
        ious = zip(self.codes.names, found.iou.tolist(), strict=True)
        self.history.rows.append(row | {f"iou_{name}": value for name, value in ious})
        self._seen = []
        with disk_errors("keeping weights", self.out):
            if self.history.best == len(self.history.rows) - 1:
                self.confusion = counts
                state = task.average.module.state_dict()
                publish_bytes(self.out / BEST, save({name: part.cpu().contiguous() for name, part in state.items()}))
            publish_bytes(self.out / HISTORY, self.history.to_csv())
            self._keep(trainer)
        since = len(self.history.rows) - 1 - self.history.best
        trainer.should_stop = self.run.patience is not None and since >= self.run.patience

    def _compare(self, trainer: Trainer, task: SegmentationTask) -> tuple[Counts, float]:
        """(code, channel) pixels of all held-out chips, and the mean loss, by the averaged weights."""
        network = task.average.module.eval()
        counts, losses = np.zeros(self._shape, np.int64), []
        chips: DataLoader[tuple[torch.Tensor, torch.Tensor]] = DataLoader(self.samples, self.run.batch)
        with torch.inference_mode(), trainer.precision_plugin.forward_context():
            for pixels, labels in chips:
                logits = network(task.normalized(pixels.to(task.device)))
                losses.append(float(task.loss(logits, labels.to(task.device))))
                known = labels != IGNORE
                pairs = labels[known].long() * self._shape[1] + logits.argmax(1).cpu()[known]
                counts += np.bincount(pairs.numpy(), minlength=counts.size).reshape(self._shape)
        return counts, float(np.mean(losses))

    def _keep(self, trainer: Trainer) -> None:
        """Write the checkpoint, whole or not at all."""
        temporary = self.out / f".{LAST}.tmp"
        try:
            trainer.save_checkpoint(temporary)
        except RuntimeError as error:  # torch's own, where the disk is full
            raise GeosegError(f"The checkpoint could not be written to {self.out}: {error}") from error
        publish_file(temporary, self.out / LAST)

    @property
    def _shape(self) -> tuple[int, int]:
        return len(self.codes.names), len(self.codes.legend.classes)
