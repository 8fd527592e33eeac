"""Networks written in the formats of others, and run there."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from geoseg.errors import GeosegError
from geoseg.models.card import ModelCard
from geoseg.models.onnx_graph import needed
from geoseg.models.openvino_core import openvino_core

OPSET = 17  # what ONNX Runtime has run since 1.12
LARGEST = 16384  # pixels of a side that torch.export is told of
Runner = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def write_onnx(network: nn.Module, card: ModelCard, file: Path, metadata: Mapping[str, str]) -> Runner:
    """Write a graph for chips of any size, or of the one that the card fixes; float32, one file.

    Returns:
        What runs it, in ONNX Runtime: chips to logits.
    """
    needed()
    import onnx
    import onnxruntime

    free = {0: "chip"} if card.fixed_chip else {0: "chip", 2: "height", 3: "width"}
    with _exporting("ONNX", card):
        torch.onnx.export(
            network,
            (_example(card, chips=1),),
            file,
            dynamo=False,  # the other exporter needs a further package
            opset_version=OPSET,
            input_names=["chips"],
            output_names=["logits"],
            dynamic_axes={"chips": free, "logits": free},
        )
    graph = onnx.load(file)
    side = card.chip_px if card.fixed_chip else 0
    shape = ("chip", len(card.legend.classes), side or "height", side or "width")  # which tracing does not always tell
    logits = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, shape)
    graph.graph.output[0].CopyFrom(logits)
    onnx.helper.set_model_props(graph, dict(metadata))
    onnx.save(graph, file)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda chips: np.asarray(session.run(None, {"chips": chips})[0])


def write_openvino(graph: Path, file: Path, metadata: Mapping[str, str]) -> Runner:
    """Write an ONNX graph as OpenVINO has it: `file`, and its weights beside it.

    Returns:
        What runs it: chips to logits.
    """
    import openvino

    core = openvino_core()
    network = core.read_model(graph.read_bytes())
    for key, value in metadata.items():
        network.set_rt_info(value, ["model_info", key])
    openvino.save_model(network, file, compress_to_fp16=False)
    compiled = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda chips: np.asarray(compiled(chips)[0])


def write_torch_export(network: nn.Module, card: ModelCard, file: Path, metadata: Mapping[str, str]) -> Runner:
    """Write a program of torch.export for chips of any size, or of the one that the card fixes.

    Returns:
        What runs it, from memory: chips to logits.
    """
    stride = card.output_stride
    rows, cols = (torch.export.Dim(name, min=2, max=LARGEST // stride) for name in ("rows", "cols"))
    free = {0: torch.export.Dim("chip", min=1, max=1024)}
    if not card.fixed_chip:
        free |= {2: stride * rows, 3: stride * cols}
    with _exporting("torch.export", card):
        program = torch.export.export(network, (_example(card, chips=2),), dynamic_shapes=(free,))
        torch.export.save(program, file, extra_files=dict(metadata))
    module = program.module()

    def run(chips: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: NDArray[np.float32] = module(torch.from_numpy(chips)).numpy()
        return logits

    return run


def _example(card: ModelCard, *, chips: int) -> torch.Tensor:
    stride = card.output_stride
    if card.fixed_chip:
        return torch.zeros(chips, len(card.bands), card.chip_px, card.chip_px)
    side = -(-64 // stride) * stride  # unequal sides, so that none is taken for the other
    return torch.zeros(chips, len(card.bands), side + stride, side + 2 * stride)


@contextmanager
def _exporting(what: str, card: ModelCard) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing, which is deprecated, and of branches that chips do not reach
        try:
            yield
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0][:300]
            raise GeosegError(f"{card.name} ({card.architecture.name}) has no form in {what}: {reason}") from error
