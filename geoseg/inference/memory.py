"""What a run will hold in memory, worked out before it starts: a function of chip, block, classes and workers.

Nothing is measured here, so that the same request always gives the same plan, and with it the same pixels.
"""

from __future__ import annotations

import copy
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from geoseg.grid import ChipGrid
from geoseg.models import Model, OnnxNetwork
from geoseg.raster.handles import limit_gdal_cache

MIB = 2**20
BASE = 1150 * MIB  # a process with torch, OpenVINO, GDAL and dask, and a compiled network
UNKNOWN_NETWORK = 2048  # bytes for each pixel of a chip, where a network cannot be traced (ONNX)
WEIGHT_COPIES = 2  # the module's own and the engine's
RESERVE = {"torch": 1.7, "openvino": 1.15}  # copies in other memory formats, scratch space, what the allocator loses


@dataclass(frozen=True, slots=True)
class Memory:
    """Expected peak of resident memory in bytes.

    Attributes:
        network: one chip on its way through the network.
        block: what one thread holds of a block: pixels read, and layers to write.
        threads: blocks in work at once in one process.
        processes: that compute blocks.
    """

    network: int
    block: int
    threads: int
    processes: int

    @property
    def of_a_process(self) -> int:
        return BASE + limit_gdal_cache() + self.network + self.threads * self.block

    @property
    def total(self) -> int:
        """Of all processes on this machine; with several, the one that hands out the blocks computes none."""
        return self.processes * self.of_a_process + (BASE + limit_gdal_cache() if self.processes > 1 else 0)


def block_bytes(grid: ChipGrid, *, pixel_bytes: int, layers: int, floats: int) -> int:
    """What one thread holds while it computes a block.

    Args:
        grid: where chips and blocks lie.
        pixel_bytes: of all bands of one pixel, as stored.
        layers: uint8 bands that are written.
        floats: float32 values kept for each pixel until they are encoded.
    """
    side = min(grid.block_side, max(grid.shape))
    read = (side + 2 * grid.halo) ** 2 * (2 * pixel_bytes + 3)  # mirrored at the scene's edges: a second copy
    written = side**2 * (3 + 3 * layers + 8 * floats)  # class map, masks; encoded and compressed; rounded copies
    if grid.ramp:
        written += side**2 * 8 * max(1, floats)
    return int(read + written)


def network_bytes(model: Model, side: int, engine: str) -> int:
    """The weights, and the peak of what is alive while one chip of `side` pixels goes through, its logits included."""
    card = model.card
    weights = WEIGHT_COPIES * weight_bytes(model.network)
    ends = side**2 * 4 * (2 * len(card.bands) + 2 * len(card.legend.classes))
    alive = most_alive(model.network, (1, len(card.bands), side, side))
    return int(weights + ends + (side**2 * UNKNOWN_NETWORK if alive is None else RESERVE.get(engine, 1) * alive))


def weight_bytes(network: nn.Module) -> int:
    """Size of the weights as they are in memory."""
    if isinstance(network, OnnxNetwork):
        return network.nbytes
    return sum(tensor.nbytes for tensor in network.state_dict().values())


def most_alive(network: nn.Module, shape: tuple[int, ...]) -> int | None:
    """The largest sum of the sizes of tensors alive at once, from a run on the meta device; None if it has none.

    What a detector does depends on what it sees, and is rehearsed.
    """
    try:
        census, copied = Census(), copy.deepcopy(network).to("meta")
        with torch.inference_mode(), census:
            getattr(copied, "rehearse", copied)(torch.empty(shape, device="meta"))
    except (NotImplementedError, RuntimeError, TypeError):
        return None
    return census.most


class Census(TorchDispatchMode):
    """Counts the bytes of tensors that are alive. What only views hold is missed."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.most = 0, 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._born(tensor)
        return result

    def _born(self, tensor: torch.Tensor) -> None:
        key = tensor.untyped_storage()._cdata
        if key not in self._known:
            self._known[key] = tensor.untyped_storage().nbytes()
            self.now += self._known[key]
            self.most = max(self.most, self.now)
            weakref.finalize(tensor, self._died, key)

    def _died(self, key: int) -> None:
        self.now -= self._known.pop(key, 0)
