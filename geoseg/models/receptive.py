"""How far a network looks, measured; and how much of that matters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from geoseg.errors import GeosegError
from geoseg.models.onnx import OnnxNetwork

LARGEST = 2048
CHANGE = 1e4  # large against noise of 0 to 1, so that little of it is not lost in rounding
LEAST = 1e-3
SAME = {torch.float64: 1e-9, torch.float32: 1e-5}  # of the largest logit: more than rounding makes


def receptive_field(network: nn.Module, *, bands: int, output_stride: int, largest: int = LARGEST) -> int:
    """Distance in pixels to the farthest input pixel that an output pixel depends on.

    The support of the gradient of one output pixel with respect to the input (Luo et al. 2016, arXiv:1701.04128), the
    largest over all phases of the pixel against the output stride. The weights are taken by their size and the
    normalizations as neutral: so no path is hidden by a closed ReLU or by terms that cancel; nor by a gate, an
    attention or a clipped activation that saturates, as these are taken as linear. An ONNX graph has no gradient: there
    a line of pixels is changed, and the logits that change with it are looked for. Quantized graphs and clipped
    activations can hide from that what is far and faint.

    Args:
        network: chips (chip, band, height, width) to logits.
        bands: of its input.
        output_stride: of the network.
        largest: side of the largest chip tried.

    Raises:
        GeosegError: it sees the whole chip, however large; or it is an ONNX graph that cannot be measured.
    """
    reach_along = _reach_by_change if isinstance(network, OnnxNetwork) else _reach
    network = _all_paths_open(network)
    side = min(largest, 16 * output_stride)
    while side <= largest:
        reach = reach_along(network, (bands, side, output_stride), output_stride, axis=1)
        if reach < side // 2 - output_stride:
            other = reach_along(network, (bands, output_stride, side), output_stride, axis=2)
            if other < side // 2 - output_stride:
                return max(reach, other)
        side *= 2
    raise GeosegError(f"The network still sees the rim of a chip of {largest} px; it has no bounded receptive field.")


def is_position_independent(network: nn.Module, *, bands: int, output_stride: int, largest: int = LARGEST) -> bool:
    """Whether the answer for a pixel does not depend on where in a chip it lies, given enough halo.

    Measured: the receptive field is bounded, and strips of noise that start one output stride later get the same
    logits. Squeeze-excite, attention and pooling over the chip fail the first; `align_corners=True` fails the second.

    Args:
        network: chips (chip, band, height, width) to logits.
        bands: of its input.
        output_stride: of the network.
        largest: side of the largest chip tried.
    """
    try:
        reach = receptive_field(network, bands=bands, output_stride=output_stride, largest=largest)
    except GeosegError:
        return False
    network = _all_paths_open(network)
    halo = -(-reach // output_stride) * output_stride
    strip = (bands, 2 * halo + 3 * output_stride, output_stride)
    return all(
        _is_same_when_shifted(network, shape, halo, axis=axis) for shape, axis in ((strip, 2), (_turned(strip), 3))
    )


def _turned(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    return shape[0], shape[2], shape[1]


def _is_same_when_shifted(network: nn.Module, shape: tuple[int, int, int], halo: int, *, axis: int) -> bool:
    stride, side = min(shape[1:]), max(shape[1:])
    dtype = torch.float32 if isinstance(network, OnnxNetwork) else torch.float64
    noise = torch.rand(1, *shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), _LinearGates():
        whole = network(noise).narrow(axis, halo + stride, side - stride - 2 * halo)
        part = network(noise.narrow(axis, stride, side - stride)).narrow(axis, halo, side - stride - 2 * halo)
    return bool((whole - part).abs().max() <= SAME[dtype] * whole.abs().max())


class _LinearGates(TorchFunctionMode):
    """Lets gates and clips pass what they are given, and an attention see all alike: saturated, they hide things."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in GATES:
            return args[0]
        if func in SOFTMAX:
            return torch.ones_like(args[0]) / args[0].shape[(kwargs or {}).get("dim", args[1] if len(args) > 1 else -1)]
        if func is nn.functional.scaled_dot_product_attention:
            return _even_attention(*args[:3])
        return func(*args, **(kwargs or {}))


GATES = (
    torch.sigmoid,
    torch.sigmoid_,
    Tensor.sigmoid,
    Tensor.sigmoid_,
    nn.functional.sigmoid,
    nn.functional.hardsigmoid,
    nn.functional.relu6,
    nn.functional.hardtanh,
)
SOFTMAX = (torch.softmax, Tensor.softmax, nn.functional.softmax)


def _even_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return value.mean(-2, keepdim=True).expand(*query.shape[:-1], value.shape[-1])


def _all_paths_open(network: nn.Module) -> nn.Module:
    if isinstance(network, OnnxNetwork):
        return network.with_open_paths()
    opened = copy.deepcopy(network).double().eval()
    with torch.no_grad():
        for parameter in opened.parameters():
            parameter.abs_()
            if parameter.ndim == 1:
                parameter.clamp_(min=LEAST)  # scales that training starts from zero
        for module in opened.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.reset_running_stats()
                module.reset_parameters()
    return opened


def _reach(network: nn.Module, shape: tuple[int, int, int], output_stride: int, *, axis: int) -> int:
    """Farthest input pixel along one axis of a chip (band, height, width) that any phase of an output pixel sees."""
    chip = torch.rand(1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with _LinearGates():
        total = network(chip).sum((0, 1, 4 - axis))  # along the axis alone
    reach = 0
    for phase in range(output_stride):
        at = shape[axis] // 2 + phase
        [gradient] = torch.autograd.grad(total[at], chip, retain_graph=True, allow_unused=True)
        if gradient is not None:
            seen = torch.nonzero((gradient[0] != 0).any(0).any(2 - axis))
            reach = max(reach, int((seen - at).abs().max()))
    return reach


def _reach_by_change(network: nn.Module, shape: tuple[int, int, int], output_stride: int, *, axis: int) -> int:
    """The same from the other end: farthest logit along one axis that a change of any phase of an input pixel reaches.

    Against zeros the faintest change is seen, and against noise one that is multiplied by what others see (gates).
    """
    noise = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    reach = 0
    for chip in (torch.zeros_like(noise), noise):
        logits = network(chip)
        for phase in range(output_stride):
            at = shape[axis] // 2 + phase
            changed = chip.clone()
            changed.select(axis + 1, at).add_(CHANGE)
            seen = torch.nonzero((network(changed) != logits)[0].any(0).any(2 - axis))
            reach = max(reach, int((seen - at).abs().max()) if len(seen) else 0)
    return reach


def smallest_halo(
    network: nn.Module, chips: Iterable[NDArray[np.float32]], *, output_stride: int, exact: int, share: float = 0.001
) -> int:
    """The smallest halo, a multiple of the output stride, that changes at most `share` of the pixels of real chips.

    Args:
        network: in evaluation mode.
        chips: normalized (band, height, width), each with a core of at least the output stride between exact halos.
        output_stride: of the network.
        exact: a halo that changes nothing; the largest tried.
        share: of pixels whose class may differ from that with the exact halo.
    """
    changed = np.zeros(exact // output_stride + 1)
    pixels = 0
    for chip in chips:
        reference = _classes(network, chip, exact)
        pixels += reference.size
        for step in range(len(changed)):
            inner = exact - step * output_stride
            cut = chip[:, inner : chip.shape[1] - inner, inner : chip.shape[2] - inner]
            changed[step] += (_classes(network, cut, step * output_stride) != reference).sum()
    enough = np.flatnonzero(np.maximum.accumulate((changed / max(1, pixels))[::-1])[::-1] <= share)
    return int(enough[0]) * output_stride if len(enough) else exact


def _classes(network: nn.Module, chip: NDArray[np.float32], halo: int) -> NDArray[np.int64]:
    with torch.inference_mode():
        logits = network(torch.from_numpy(np.ascontiguousarray(chip))[None])[0]
    inside = logits[:, halo : logits.shape[1] - halo, halo : logits.shape[2] - halo]
    classes: NDArray[np.int64] = inside.argmax(0).numpy()
    return classes
