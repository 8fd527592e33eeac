"""How far a network looks, measured; and how much of that matters."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from geoseg.errors import GeosegError
from geoseg.models.onnx import OnnxNetwork

LARGEST = 2048
CHANGE = 1e4  # large against noise of 0 to 1, so that little of it is not lost in rounding


def receptive_field(network: nn.Module, *, bands: int, output_stride: int, largest: int = LARGEST) -> int:
    """Distance in pixels to the farthest input pixel that an output pixel depends on.

    The support of the gradient of one output pixel with respect to the input (Luo et al. 2016, arXiv:1701.04128), the
    largest over all phases of the pixel against the output stride. The weights are taken by their size and the
    normalizations as neutral: so no path is hidden by a closed ReLU or by terms that cancel. An ONNX graph has no
    gradient: there a line of pixels is changed, and the logits that change with it are looked for. Quantized graphs and
    clipped activations can hide from that what is far and faint.

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


def _all_paths_open(network: nn.Module) -> nn.Module:
    if isinstance(network, OnnxNetwork):
        return network.with_open_paths()
    opened = copy.deepcopy(network).double().eval()
    with torch.no_grad():
        for parameter in opened.parameters():
            parameter.abs_()
        for module in opened.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.reset_running_stats()
                module.reset_parameters()
    return opened


def _reach(network: nn.Module, shape: tuple[int, int, int], output_stride: int, *, axis: int) -> int:
    """Farthest input pixel along one axis of a chip (band, height, width) that any phase of an output pixel sees."""
    chip = torch.rand(1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
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
