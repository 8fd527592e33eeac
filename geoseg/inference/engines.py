"""Networks that run: normalized chips in, logits out, on one device in one precision."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from geoseg.inference.converted import converted
from geoseg.models.openvino_core import openvino_core

if TYPE_CHECKING:
    import openvino

    from geoseg.models.detector import Seen

MAX_SHAPES = 4  # compiled networks kept; a run has one shape of chips


class Engine(Protocol):
    """Runs a network, for one thread at a time; what it returns is good until that thread's next call."""

    def __call__(self, chips: Tensor) -> Tensor:
        """Logits (chip, class, height, width) float32 of normalized chips (chip, band, height, width) float32."""


class TorchEngine:
    """The module as it is.

    Args:
        network: in evaluation mode.
        device: of torch.
        precision: float32 or bfloat16.
    """

    def __init__(self, network: nn.Module, device: str, precision: str) -> None:
        self.device, self.precision = device, precision
        network = network if device == "cpu" else copy.deepcopy(network)  # the model's own stays where it is
        self._network = network.to(device).to(memory_format=self._memory_format).eval()

    @property
    def _memory_format(self) -> torch.memory_format:
        """Channels last is faster, but on the CPU oneDNN then adds up in another order where features are large."""
        exact = self.device == "cpu" and self.precision == "float32"
        return torch.contiguous_format if exact else torch.channels_last

    def __call__(self, chips: Tensor) -> Tensor:
        with torch.inference_mode(), self._arithmetic():
            logits: Tensor = self._network(chips.to(memory_format=self._memory_format))
            return logits.float()

    def see(self, chips: Tensor, least_score: float, with_logits: bool) -> Seen:
        """Objects and logits of normalized chips, where the network is a detector."""
        see: Callable[[Tensor, float, bool], Seen] = self._network.see  # type: ignore[assignment]
        with torch.inference_mode(), self._arithmetic():
            return see(chips.to(memory_format=self._memory_format), least_score, with_logits)

    def _arithmetic(self) -> AbstractContextManager[Any]:
        if self.precision == "bfloat16":
            return torch.autocast(self.device, torch.bfloat16)
        one_kernel = self.device == "cpu" and torch.backends.mkldnn.is_available()
        return _OneKernel() if one_kernel else nullcontext()


class OpenVinoEngine:
    """The same network, compiled for this CPU: batch norms folded, layers fused.

    Args:
        network: a torch module that can be traced.
        bands: channels of its input.
        precision: float32 or bfloat16.
    """

    def __init__(self, network: nn.Module, bands: int, precision: str) -> None:
        self._network = converted(network, bands)
        self._precision = precision
        self._compiled: OrderedDict[tuple[int, ...], openvino.CompiledModel] = OrderedDict()
        self._requests = threading.local()

    def __call__(self, chips: Tensor) -> Tensor:
        request = self._request(tuple(chips.shape))
        outputs = request.infer({0: chips.contiguous().numpy()}, share_inputs=True, share_outputs=True)
        logits: Tensor = torch.from_numpy(outputs[0])
        return logits

    def _request(self, shape: tuple[int, ...]) -> openvino.InferRequest:
        """This thread's request: its output stays untouched while other threads compute."""
        if getattr(self._requests, "shape", None) != shape:
            self._requests.shape, self._requests.request = shape, self._compile(shape).create_infer_request()
        request: openvino.InferRequest = self._requests.request
        return request

    def _compile(self, shape: tuple[int, ...]) -> openvino.CompiledModel:
        if shape not in self._compiled:
            model = self._network.clone()
            model.reshape(list(shape))
            settings = {
                "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[self._precision],
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "ENABLE_CPU_PINNING": False,  # two processes would pin themselves to the same cores
            }
            self._compiled[shape] = openvino_core().compile_model(model, "CPU", settings)
            while len(self._compiled) > MAX_SHAPES:
                self._compiled.popitem(last=False)
        return self._compiled[shape]


def openvino_is_installed() -> bool:
    return find_spec("openvino") is not None


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
