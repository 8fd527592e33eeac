"""The loop of a training, run by Lightning: how it starts, goes on from a checkpoint, and ends when something fails."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning import Trainer
from safetensors.torch import save
from torch.utils.data import DataLoader, Dataset

from geoseg.errors import GeosegError, InputError
from geoseg.inference.predictor import Backend
from geoseg.raster.disk import publish_bytes
from geoseg.training.config import RunConfig
from geoseg.training.task import NotFinite, SegmentationTask
from geoseg.training.watch import BEST, Watch

GOOD = "last-good.safetensors"


def fit(run: RunConfig, task: SegmentationTask, data: Dataset[Any], watch: Watch, checkpoint: Path | None) -> None:
    """Run the loop to its end.

    Args:
        run: how.
        task: whose network is fitted.
        data: samples, in order.
        watch: what looks on, validates and keeps weights.
        checkpoint: to go on from.

    Raises:
        NotFinite: the loss is no number; the weights before that are kept.
        GeosegError: there is too little memory.
        KeyboardInterrupt: somebody stopped it.
    """
    backend = Backend.resolve(run.device, run.precision, "torch")
    loader: DataLoader[Any] = DataLoader(data, run.batch, num_workers=run.loaders, persistent_workers=run.loaders > 0)
    with _quiet():
        trainer = Trainer(
            max_steps=run.steps,
            max_epochs=1,
            accelerator="gpu" if backend.device == "cuda" else "cpu",
            devices=1,
            precision="bf16-mixed" if backend.precision == "bfloat16" else "32-true",
            gradient_clip_val=run.clip,
            logger=_logger(run.log, watch.out),
            callbacks=[watch],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=10,
        )
    try:
        with _quiet():
            trainer.fit(task, loader, ckpt_path=checkpoint, weights_only=True)
    except SystemExit:  # what Lightning makes of Ctrl-C
        if watch.was_stopped:
            raise KeyboardInterrupt from None
        raise
    except NotFinite as error:
        state = {name: tensor.contiguous() for name, tensor in task.average.module.cpu().state_dict().items()}
        publish_bytes(watch.out / GOOD, save(state))
        raise NotFinite(f"{error} The weights before that are kept in {watch.out / GOOD}.") from error
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        kept = watch.out / BEST
        more = f" With start.weights: {kept} another training goes on from the best so far." if kept.exists() else ""
        raise GeosegError(
            f"There is too little memory for {run.batch} chips of {run.chip} px in a step; lower run.batch or "
            f"run.chip, or take a smaller network.{more}"
        ) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of ours; a pickle with code in it is refused.

    Raises:
        InputError: it cannot be read.
    """
    try:
        found: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        return {name: found[name] for name in ("global_step", "callbacks")}
    except (OSError, RuntimeError, KeyError, ValueError, UnpicklingError) as error:
        raise InputError(f"{path} is no checkpoint to go on from ({error}); start in another folder.") from error


def _is_out_of_memory(error: BaseException) -> bool:
    """Torch says it on the CPU in words only."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)


def _logger(kind: str, out: Path) -> Any:
    if kind == "csv":
        return False  # the history is written as CSV anyway
    from lightning.pytorch.loggers import TensorBoardLogger

    try:
        return TensorBoardLogger(out, name="tensorboard")
    except ModuleNotFoundError as error:
        raise InputError("run.log: tensorboard needs a package; pip install tensorboard, or log: csv.") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what Lightning says about the machine, itself and its makers."""
    talker = logging.getLogger("lightning.pytorch")
    level = talker.level
    talker.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.|torch\.")
            yield
    finally:
        talker.setLevel(level)
