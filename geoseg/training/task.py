"""The training step, its schedule, and the averaged weights that are kept (Lightning runs the loop)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from geoseg.errors import GeosegError


@dataclass(frozen=True, slots=True)
class Schedule:
    """Warm-up, a long constant stretch, cosine decay to zero: the end may be moved while the run is in the middle.

    Attributes:
        steps: number of optimizer steps.
        warmup: steps of linear rise.
        decay: share of the steps spent in the final decay.
        learning_rate: the constant one.
    """

    steps: int
    warmup: int = 100
    decay: float = 0.35
    learning_rate: float = 1e-3

    def factor(self, step: int) -> float:
        """Learning rate at a step, as a share of the constant one."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        left = (self.steps - step) / max(1.0, self.decay * self.steps)
        return float(0.5 - 0.5 * torch.cos(torch.tensor(torch.pi * min(1.0, max(0.0, left)))))


class SegmentationTask(LightningModule):
    """Fits a network to samples of (pixels in 0..1, label codes) and keeps an exponential average of its weights.

    Args:
        network: chips (sample, band, height, width) to logits (sample, class, height, width).
        losses: summed with the given weights.
        schedule: of the learning rate.
        mean: one per band, of pixels in 0..1.
        std: one per band.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        losses: list[tuple[float, nn.Module]],
        schedule: Schedule,
        *,
        mean: list[float],
        std: list[float],
    ) -> None:
        super().__init__()
        self.network = network
        self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.995), use_buffers=True)
        self.losses = nn.ModuleList([loss for _, loss in losses])
        self.loss_weights = [weight for weight, _ in losses]
        self.schedule = schedule
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        pixels, labels = batch
        logits = self.network((pixels - self.mean) / self.std)
        terms = [w * loss(logits, labels) for w, loss in zip(self.loss_weights, self.losses, strict=True)]
        total = torch.stack(terms).sum()
        if not torch.isfinite(total):
            raise GeosegError(f"The loss is {total.item()} at step {self.global_step}; the last checkpoint is kept.")
        self.log("loss", total, prog_bar=True)
        return total

    def on_train_batch_end(self, *args: Any) -> None:
        self.average.update_parameters(self.network)

    def configure_optimizers(self) -> Any:
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        plain = [p for p in self.network.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=self.schedule.learning_rate)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule.factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
