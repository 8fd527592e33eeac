"""Chips to logits: the only place that names a device or a precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

from geoseg.errors import InputError
from geoseg.models import Model

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, slots=True)
class Backend:
    """Where and how a network runs, resolved: never `auto`."""

    device: str
    precision: str

    @classmethod
    def resolve(cls, device: str = "auto", precision: str = "auto") -> Backend:
        """The fastest of this machine that the request allows.

        Raises:
            InputError: an unknown value, or a device that is not there.
        """
        for what, value, known in (("Device", device, DEVICES), ("Precision", precision, PRECISIONS)):
            if value not in known:
                raise InputError(f"{what} {value!r} is unknown; use one of {', '.join(known)}.")
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError("Device 'cuda' was asked for, and torch finds none here; use --device cpu or auto.")
        device = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        if precision == "auto":
            precision = "bfloat16" if _bfloat16_is_native(device) else "float32"
        return cls(device, precision)


class Reduced(NamedTuple):
    """What is kept of logits.

    Attributes:
        channel: (height, width) uint8, the likeliest.
        confidence: (height, width) float32, its probability.
        probabilities: (class, height, width) float32; None unless asked for.
    """

    channel: NDArray[np.uint8]
    confidence: NDArray[np.float32]
    probabilities: NDArray[np.float32] | None


class Predictor:
    """A network on a device. One chip at a time goes through it, whoever asks: reading and writing overlap instead.

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
        self._lock = Lock()
        self._network = self.model.network.to(self.backend.device).to(memory_format=self._memory_format).eval()

    @property
    def _memory_format(self) -> torch.memory_format:
        """Channels last is faster, but on the CPU oneDNN then adds up in another order where features are large."""
        exact = self.backend.device == "cpu" and self.backend.precision == "float32"
        return torch.contiguous_format if exact else torch.channels_last

    def logits(self, chip: NDArray[np.float32]) -> Tensor:
        """Logits (class, height, width) float32, on the device, of a normalized chip (band, height, width)."""
        batch = torch.from_numpy(chip)[None].to(self.backend.device, memory_format=self._memory_format)
        with self._lock, torch.inference_mode(), self._arithmetic():
            logits: Tensor = self._network(batch)[0].float()
        return logits

    def _arithmetic(self) -> AbstractContextManager[Any]:
        if self.backend.precision == "bfloat16":
            return torch.autocast(self.backend.device, torch.bfloat16)
        one_kernel = self.backend.device == "cpu" and torch.backends.mkldnn.is_available()
        return _OneKernel() if one_kernel else nullcontext()

    def reduce(self, logits: Tensor, *, probabilities: bool = False) -> Reduced:
        """The likeliest channel, its probability, and all probabilities if asked.

        Args:
            logits: (class, height, width), any device.
            probabilities: whether to keep them all.
        """
        with torch.inference_mode():
            # Classes last, so that each pixel is a row of its own: along any other axis torch takes pixels by the
            # eight, and rounds the remaining few otherwise.
            spread = logits.movedim(0, -1).softmax(-1)  # (height, width, class)
            confidence, channel = spread.max(-1)
            return Reduced(
                channel.to(torch.uint8).cpu().numpy(),
                confidence.cpu().numpy(),
                spread.movedim(-1, 0).cpu().numpy() if probabilities else None,
            )


class _OneKernel(TorchFunctionMode):
    """Sends every float32 convolution on the CPU to oneDNN.

    Left alone, torch takes a kernel that rounds otherwise where a chip's features are small (20480 numbers) and for
    1 x 1 convolutions on one thread: `use_mkldnn` in ATen/native/Convolution.cpp. The bits would then depend on the
    size of the chip and on the number of threads.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return (_convolve if func is torch.conv2d else func)(*args, **(kwargs or {}))


def _convolve(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """torch.conv2d, by oneDNN whatever the size."""
    if isinstance(padding, str) or input.dtype != torch.float32:
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    return torch.mkldnn_convolution(input, weight, bias, _pair(padding), _pair(stride), _pair(dilation), groups)


def _pair(value: int | Sequence[int]) -> Sequence[int]:
    return (value, value) if isinstance(value, int) else value


def _bfloat16_is_native(device: str) -> bool:
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in checks)
