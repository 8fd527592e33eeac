"""Networks as OpenVINO has them, kept in the user's cache: to convert one takes as long as to compute a small scene."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from geoseg.models import OnnxNetwork
from geoseg.models.bundle import weights_digest
from geoseg.models.openvino_core import openvino_core
from geoseg.raster.disk import cache_folder

if TYPE_CHECKING:
    import openvino

KEPT = 8  # newest networks in the cache
FILE = "network.xml"


def converted(network: nn.Module, bands: int) -> openvino.Model:
    """A network for chips of any size.

    Args:
        network: a torch module that can be traced, or an ONNX graph.
        bands: channels of its input.
    """
    import openvino

    if isinstance(network, OnnxNetwork):
        return openvino_core().read_model(network.source())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated by torch; it is what OpenVINO converts from
        network = network.cpu().to(memory_format=torch.contiguous_format)
        with torch.inference_mode():  # traced here, as OpenVINO would run it three times more to check
            side = 4 * getattr(network, "output_stride", 16)
            traced = torch.jit.trace(network, torch.zeros(1, bands, side, side), check_trace=False)
        key = _key(network, traced)
        place = None if key is None else cache_folder() / "openvino" / key
        if place is not None and (place / FILE).is_file():
            with suppress(RuntimeError):  # damaged: converted again
                return openvino_core().read_model(place / FILE)
        model = openvino.convert_model(traced, input=[(-1, bands, -1, -1)])
    if place is not None:
        _keep(model, place)
    return model


def _key(network: nn.Module, traced: Any) -> str | None:
    """Digest of all that the conversion depends on; None where a trace does not tell."""
    import openvino

    state = network.state_dict()
    graph = str(traced.inlined_graph)
    if "<Tensor>" in graph or any(name not in state for name, _ in network.named_buffers()):
        return None  # numbers that stand neither in the graph's text nor among the weights
    graph = re.sub(r"__torch__[\w.]*", "", graph)  # class names are numbered by what else was traced
    told = f"{openvino.get_version()} {weights_digest(state)} {graph}"
    return hashlib.sha256(told.encode()).hexdigest()


def _keep(model: openvino.Model, place: Path) -> None:
    """Put a network into the cache, whole or not at all; a cache that cannot be written is done without."""
    import openvino

    with suppress(OSError, RuntimeError):
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".", ignore_cleanup_errors=True) as made:
            new = Path(made) / "new"
            new.mkdir()
            openvino.save_model(model, new / FILE, compress_to_fp16=False)
            shutil.rmtree(place, ignore_errors=True)  # what could not be read
            new.rename(place)
        newest = sorted(place.parent.glob("[!.]*"), key=lambda p: p.stat().st_mtime, reverse=True)
        for old in newest[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
