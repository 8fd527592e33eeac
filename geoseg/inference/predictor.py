"""Chips to logits: with engines.py the only place that names a device, a precision or an engine."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoseg.errors import GeosegError, InputError
from geoseg.inference.engines import Engine, OpenVinoEngine, TorchEngine, openvino_is_installed
from geoseg.models import Model, ModelCard
from geoseg.models.architectures import DETECTORS
from geoseg.models.onnx import ONNX, serves_cuda
from geoseg.raster.normalize import Normalization
from geoseg.raster.reader import Pixels

if TYPE_CHECKING:
    from geoseg.models.detector import Seen

log = logging.getLogger(__name__)
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "float32", "bfloat16")
ENGINES = ("auto", "torch", "openvino", "onnxruntime")
RULES = "spectral-index"  # no convolutions: nothing that compiling would make faster
MAX_BATCH = 16
IN_FLIGHT = 2  # batches on a CUDA device: one is computed while the other is copied


@dataclass(frozen=True, slots=True)
class Backend:
    """Where and how a network runs, resolved: never `auto`."""

    device: str
    precision: str
    engine: str = "torch"

    @classmethod
    def resolve(
        cls, device: str = "auto", precision: str = "auto", engine: str = "auto", *, card: ModelCard | None = None
    ) -> Backend:
        """The fastest of this machine that the request allows.

        Args:
            device: auto, cpu or cuda.
            precision: auto, float32 or bfloat16.
            engine: auto, torch, openvino or onnxruntime.
            card: of the model that is to run; None for a torch network.

        Raises:
            InputError: an unknown value, or a device or package that is not there.
        """
        is_onnx = card is not None and card.architecture.name == ONNX
        _check_request(device, precision, engine, is_onnx)
        if engine == "openvino" and card is not None and card.architecture.name in DETECTORS:
            raise InputError(f"Engine 'openvino' cannot run {card.architecture.name}; use --engine torch.")
        if device == "auto":
            usable = torch.cuda.is_available() and engine != "openvino" and (not is_onnx or serves_cuda())
            device = "cuda" if usable else "cpu"
        if engine == "auto":
            engine = _fastest(device, card)
        if precision == "auto":
            native = engine != "onnxruntime" and _bfloat16_is_native(device)
            precision = "bfloat16" if native else "float32"
        if (engine, precision) == ("onnxruntime", "bfloat16"):
            raise InputError("Engine 'onnxruntime' computes in float32; use --precision float32, or --engine openvino.")
        return cls(device, precision, engine)


class Reduced(NamedTuple):
    """What is kept of logits.

    Attributes:
        channel: (..., height, width) uint8, the likeliest.
        confidence: (..., height, width) float32, its probability; None unless asked for.
        probabilities: (..., class, height, width) float32; None unless asked for.
    """

    channel: NDArray[np.uint8]
    confidence: NDArray[np.float32] | None
    probabilities: NDArray[np.float32] | None


class Predictor:
    """A network on a device, for any number of threads: they take turns at it, and read and write meanwhile.

    Args:
        model: the bundle.
        backend: where it runs.
    """

    def __init__(self, model: Model, backend: Backend) -> None:
        self.model, self.backend = model, backend
        self._start()

    def __getstate__(self) -> dict[str, Any]:
        return {"model": self.model, "backend": self.backend}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.model, self.backend = state["model"], state["backend"]
        self._start()

    def _start(self) -> None:
        self._turns = threading.BoundedSemaphore(IN_FLIGHT if self.is_cuda else 1)
        self._starting = threading.Lock()
        self._started: Engine | None = None
        self._batch: int | None = None if self.is_cuda else 1
        self._streams = threading.local()

    @property
    def is_cuda(self) -> bool:
        return self.backend.device == "cuda"

    @property
    def engine(self) -> Engine:
        """The network as it runs; made when first used, as a predictor that only travels needs none."""
        with self._starting:
            if self._started is None:
                if self.backend.engine == "openvino":
                    bands = len(self.model.card.bands)
                    self._started = OpenVinoEngine(self.model.network, bands, self.backend.precision)
                else:
                    self._started = TorchEngine(self.model.network, self.backend.device, self.backend.precision)
            return self._started

    def batch(self, side: int) -> int:
        """How many chips of `side` pixels to hand over at once: 1 on the CPU, else what the device's memory holds."""
        if self._batch is None:
            with self._turns:
                self._batch = self._probe(side)
        return self._batch

    def logits(self, chip: NDArray[np.float32]) -> Tensor:
        """Logits (class, height, width) float32, on the device, of one normalized chip (band, height, width)."""
        with self._turns:
            return self.engine(torch.from_numpy(chip)[None].to(self.backend.device))[0].clone()

    def predict(self, chips: Sequence[Pixels], normalization: Normalization, *, margin: int = 0) -> Tensor:
        """Logits (chip, class, height - 2 margin, width - 2 margin) float32, on the device.

        They are good until the same thread's next call. Where the device is out of memory, fewer chips at once are
        tried, and at last quarters of one, each with `margin` pixels around it.

        Args:
            chips: pixels as stored and their validity, all of one size.
            normalization: of the scene's bands.
            margin: pixels to cut from each side.

        Raises:
            GeosegError: the device is out of memory with the smallest part of a chip.
        """
        with self._on_device():
            try:
                return self._forward(chips, normalization, margin)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
            if len(chips) > 1:
                half = len(chips) // 2
                self._batch = min(half, self._batch or half)  # another thread may set it meanwhile
                log.warning("The device is out of memory with %d chips at once; going on with fewer.", len(chips))
                halves = chips[:half], chips[half:]
                return torch.cat([self.predict(part, normalization, margin=margin) for part in halves])
            return self._in_quarters(chips[0], normalization, margin)

    def see(self, chip: Pixels, normalization: Normalization, least_score: float, *, with_logits: bool) -> Seen:
        """Objects and logits of one chip, on the host, where the network is a detector.

        Args:
            chip: pixels as stored and their validity.
            normalization: of the scene's bands.
            least_score: of objects.
            with_logits: whether they are wanted.

        Raises:
            GeosegError: the device is out of memory; what a detector sees depends on its chip, which cannot be cut.
        """
        engine = self.engine
        assert isinstance(engine, TorchEngine)
        batch = torch.from_numpy(normalization(*chip)[None])
        try:
            with self._turns:
                seen = engine.see(batch.to(self.backend.device), least_score, with_logits)
        except torch.OutOfMemoryError as error:
            raise _no_room(chip, "give a smaller --chip, ") from error
        objects = [type(one)(*(part.cpu() for part in one)) for one in seen.objects]
        return type(seen)(objects, None if seen.logits is None else seen.logits.float().cpu())

    def reduce(self, logits: Tensor, *, confidence: bool = True, probabilities: bool = False) -> Reduced:
        """The likeliest channel, and what is asked for of the probabilities.

        Args:
            logits: (..., class, height, width), any device.
            confidence: whether to keep the probability of the likeliest.
            probabilities: whether to keep them all.
        """
        with torch.inference_mode(), self._on_device():
            planes = logits.unbind(-3)
            top = planes[0].clone()
            channel = torch.zeros(top.shape, dtype=torch.uint8, device=top.device)
            better = torch.empty(top.shape, dtype=torch.bool, device=top.device)
            for number, plane in enumerate(planes[1:], 1):
                channel.masked_fill_(torch.gt(plane, top, out=better), number)
                torch.maximum(top, plane, out=top)
            kept = Reduced(channel.cpu().numpy(), None, None)
            if confidence or probabilities:
                cooled = 1 / self.model.card.temperature
                share = _share_of_top(planes, top, cooled)
                if confidence:
                    kept = kept._replace(confidence=share.cpu().numpy())
                if probabilities:
                    spread = torch.stack([(plane - top).mul_(cooled).exp_().mul_(share) for plane in planes], -3)
                    kept = kept._replace(probabilities=spread.cpu().numpy())
            return kept

    def _forward(self, chips: Sequence[Pixels], normalization: Normalization, margin: int) -> Tensor:
        engine = self.engine
        if not self.is_cuda:  # normalized outside the turn, while another thread computes
            normalized = [normalization(*chip) for chip in chips]
            batch = torch.from_numpy(normalized[0][None] if len(chips) == 1 else np.stack(normalized))
        with self._turns:
            if self.is_cuda:
                batch = normalized_on(torch.device(self.backend.device), chips, normalization)
            logits = engine(batch)
            height, width = logits.shape[-2:]
            kept = logits[..., margin : height - margin, margin : width - margin]
            if self.is_cuda:
                torch.cuda.current_stream().synchronize()
        return kept

    def _in_quarters(self, chip: Pixels, normalization: Normalization, margin: int) -> Tensor:
        card = self.model.card
        stride = card.output_stride
        kept = chip.valid.shape[0] - 2 * margin
        half = kept // 2 // stride * stride
        if half < stride or card.fixed_chip:
            raise _no_room(chip)
        log.warning("The device is out of memory with one chip; going on with quarters of it.")
        spans = [(0, half), (half, kept)]

        def quarter(rows: tuple[int, int], cols: tuple[int, int]) -> Tensor:
            height, width = (-(-(stop - start + 2 * margin) // stride) * stride for start, stop in (rows, cols))
            around = slice(rows[0], rows[0] + height), slice(cols[0], cols[0] + width)
            part = Pixels(chip.values[:, *around], chip.valid[around])
            logits = self.predict([part], normalization, margin=margin)
            return logits[..., : rows[1] - rows[0], : cols[1] - cols[0]].clone()

        rows = [torch.cat([quarter(down, across) for across in spans], -1) for down in spans]
        return torch.cat(rows, -2)

    def _probe(self, side: int) -> int:
        """The largest power of two whose chips, `IN_FLIGHT` times, fill at most four fifths of the free memory."""
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        chip = torch.zeros(1, len(self.model.card.bands), side, side, device=self.backend.device)
        try:
            self.engine(chip)
        except torch.OutOfMemoryError:
            return 1
        used = max(1, torch.cuda.max_memory_allocated() - before)
        torch.cuda.empty_cache()
        fits = int(0.8 * torch.cuda.mem_get_info()[0] / used / IN_FLIGHT)
        return max(1, min(MAX_BATCH, 1 << max(0, fits.bit_length() - 1)))

    def _on_device(self) -> AbstractContextManager[Any]:
        """A stream for each thread, so that one copies while the other computes."""
        if not self.is_cuda:
            return nullcontext()
        if not hasattr(self._streams, "stream"):
            self._streams.stream = torch.cuda.Stream()
        stream: AbstractContextManager[Any] = torch.cuda.stream(self._streams.stream)
        return stream


def _check_request(device: str, precision: str, engine: str, is_onnx: bool) -> None:
    for what, value, known in (
        ("Device", device, DEVICES),
        ("Precision", precision, PRECISIONS),
        ("Engine", engine, ENGINES),
    ):
        if value not in known:
            raise InputError(f"{what} {value!r} is unknown; use one of {', '.join(known)}.")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("Device 'cuda' was asked for, and torch finds none here; use --device cpu or auto.")
    if device == "cuda" and is_onnx and not serves_cuda():
        raise InputError("ONNX Runtime has no CUDA here; pip install onnxruntime-gpu, or use --device cpu.")
    if engine == "openvino" and not openvino_is_installed():
        raise InputError("Engine 'openvino' is not installed; pip install 'geoseg[cpu]', or use --engine torch.")
    if engine == "openvino" and device == "cuda":
        raise InputError("Engine 'openvino' runs on the CPU only; use --engine torch with --device cuda.")
    if engine == ("torch" if is_onnx else "onnxruntime"):
        others = "onnxruntime or openvino" if is_onnx else "torch or openvino"
        raise InputError(f"Engine {engine!r} cannot run this model; use {others}.")


def _no_room(chip: Pixels, remedy: str = "") -> GeosegError:
    return GeosegError(
        f"The device has too little memory for one chip of {chip.valid.shape[0]} pixels; "
        f"{remedy}use --device cpu, or free memory on the device."
    )


def _share_of_top(planes: Sequence[Tensor], top: Tensor, cooled: float) -> Tensor:
    """Softmax of the likeliest channel, at one over the temperature.

    Plane by plane: a pixel's bits do not depend on those beside it.
    """
    total, power = torch.zeros_like(top), torch.empty_like(top)
    for plane in planes:
        torch.sub(plane, top, out=power)
        total.add_(power.mul_(cooled).exp_())
    return total.reciprocal_()


def normalized_on(device: torch.device, chips: Sequence[Pixels], normalization: Normalization) -> Tensor:
    """What Normalization does, computed on a device: stored numbers are fewer bytes to copy there."""
    values = _copied(np.stack([chip.values for chip in chips]), device).float()
    valid = torch.ones((), dtype=torch.bool, device=device)
    if not all(chip.valid.all() for chip in chips):
        valid = _copied(np.stack([chip.valid for chip in chips]), device)[:, None]
    gain, shift = (torch.from_numpy(numbers).to(device)[:, None, None] for numbers in normalization.gain_and_shift)
    normalized = values * gain + shift
    normalized = torch.where(valid & normalized.isfinite(), normalized, 0.0)
    if all(normalization.present):
        return normalized
    batch = normalized.new_full((len(chips), len(normalization.present), *values.shape[-2:]), torch.nan)
    batch[:, torch.tensor(normalization.present, device=device)] = normalized
    return batch


def _copied(array: NDArray[Any], device: torch.device) -> Tensor:
    """On the device; through pinned memory, and without waiting, where it is another."""
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def _fastest(device: str, card: ModelCard | None) -> str:
    """OpenVINO on the CPU where it is installed, but for index rules and detectors."""
    name = "" if card is None else card.architecture.name
    plain = name != RULES and name not in DETECTORS
    if device == "cpu" and card is not None and plain and openvino_is_installed():
        return "openvino"
    return "onnxruntime" if name == ONNX else "torch"


def _bfloat16_is_native(device: str) -> bool:
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in checks)
