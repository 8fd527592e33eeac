"""ONNX graphs behind the interface of a torch module, run by ONNX Runtime."""

from __future__ import annotations

import hashlib
import logging
import shutil
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from geoseg.errors import GeosegError, InputError
from geoseg.models.card import ModelCard
from geoseg.models.find import ONNX_FILE
from geoseg.models.onnx_graph import OnnxFile, check_classes, needed, onnx_digest, with_open_paths

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

log = logging.getLogger(__name__)
ONNX = "onnx"
# Most networks for land cover are smaller. Their bytes travel with the model, so that workers need no folder in common
# with the client. Larger ones would fill memory: client, scheduler and worker each hold the message beside the network.
LARGEST_CONTENT = 100_000_000


class OnnxNetwork(nn.Module):
    """A graph that takes chips and gives logits. Picklable; safe in several threads.

    It has no parameters: `to` moves nothing, and autocast changes nothing. It runs in float32 where its chips are: on
    the CPU, or on a CUDA device where ONNX Runtime serves it (the package onnxruntime-gpu).

    Args:
        path: the graph's file, `model.onnx` in its bundle.
        content: the bytes of one file that holds all of it, external data too; None for the file itself.
        digest: of the content, else of the file (see `onnx_digest`).
        classes: channels of the logits.
        input_shape: chips, bands, height and width that it takes; None for what is open.
    """

    def __init__(
        self, path: Path, content: bytes | None, digest: str, *, classes: int, input_shape: tuple[int | None, ...]
    ) -> None:
        super().__init__()
        self.path, self.content, self.digest = path, content, digest
        self.classes, self.input_shape = classes, input_shape
        self._forget_sessions()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_sessions")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget_sessions()

    def _forget_sessions(self) -> None:
        self._lock = Lock()
        self._sessions: dict[torch.device, InferenceSession] = {}

    def extra_repr(self) -> str:
        """What torch shows of it."""
        return str(self.path)

    @property
    def nbytes(self) -> int:
        """Size of the graph with its weights."""
        if self.content is not None:
            return len(self.content)
        return sum(file.stat().st_size for file in self.checked_path().parent.rglob("*") if file.is_file())

    def source(self) -> bytes | str:
        """What to give to a runtime: the content, or the path of the file, which still is the same.

        Raises:
            GeosegError: the file is not there on this machine, or is another one.
        """
        return str(self.checked_path()) if self.content is None else self.content

    def checked_path(self) -> Path:
        """The path of the file, which still is the same.

        Raises:
            GeosegError: the file is not there on this machine, or is another one.
        """
        if not self.path.is_file() or onnx_digest(self.path) != self.digest:
            raise GeosegError(
                f"The graph {self.path} is missing here, or is not the one that was loaded; a model of more than "
                f"{LARGEST_CONTENT // 10**6} MB has to lie in a folder that all workers share."
            )
        return self.path

    def forward(self, chips: Tensor) -> Tensor:
        """Logits (chip, class, height, width) float32 of normalized chips (chip, band, height, width)."""
        if chips.is_cuda and not serves_cuda():
            _tell_of_the_cpu()
            return self.forward(chips.cpu()).to(chips.device)
        chips = chips.detach().float().contiguous()
        logits = chips.new_empty((len(chips), self.classes, *chips.shape[2:]))
        session = self._session(chips.device)
        at_once = self.input_shape[0] or max(1, len(chips))
        for first in range(0, len(chips), at_once):
            self._run(session, chips[first : first + at_once], logits[first : first + at_once])
        return logits

    def with_open_paths(self) -> OnnxNetwork:
        """A copy to measure the receptive field with: no path through it is hidden.

        Raises:
            GeosegError: the graph takes chips of one size only, or is too large to be changed in memory.
        """
        if self.content is None or self.input_shape[2:] != (None, None):
            why = "is too large" if self.content is None else "takes chips of one size only"
            raise GeosegError(f"{self.path} {why}: it cannot be measured; state what its layers add up to.")
        content = with_open_paths(self.content)
        return OnnxNetwork(self.path, content, "", classes=self.classes, input_shape=self.input_shape)

    def _run(self, session: InferenceSession, chips: Tensor, logits: Tensor) -> None:
        """Run on the memory of the two tensors, without a copy."""
        binding = session.io_binding()
        where = chips.device.type, chips.device.index or 0, np.float32
        binding.bind_input(session.get_inputs()[0].name, *where, tuple(chips.shape), chips.data_ptr())
        binding.bind_output(session.get_outputs()[0].name, *where, tuple(logits.shape), logits.data_ptr())
        if chips.is_cuda:
            torch.cuda.current_stream(chips.device).synchronize()  # ONNX Runtime has a stream of its own
        try:
            session.run_with_iobinding(binding)
        except _failures() as error:
            if chips.is_cuda and "memory" in str(error):  # no type tells it apart; a smaller batch may fit
                raise torch.OutOfMemoryError(str(error)) from error
            size = " x ".join(str(side) for side in chips.shape[2:])
            raise GeosegError(f"{self.path} failed on a chip of {size} px: {_first_line(error)}") from error

    def _session(self, device: torch.device) -> InferenceSession:
        with self._lock:
            if device not in self._sessions:
                self._sessions[device] = self._start(device)
            return self._sessions[device]

    def _start(self, device: torch.device) -> InferenceSession:
        needed()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.use_deterministic_compute = True
        options.log_severity_level = 4  # what fails is raised
        options.add_session_config_entry("session.load_model_format", "ONNX")  # and never another that bytes look like
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others read and write meanwhile
        cuda = ("CUDAExecutionProvider", {"device_id": device.index or 0, "use_tf32": 0})
        providers: list[Any] = [*([cuda] if device.type == "cuda" else []), "CPUExecutionProvider"]
        source = self.source()
        try:
            return onnxruntime.InferenceSession(source, options, providers)
        except _failures() as error:
            raise InputError(f"ONNX Runtime cannot run {self.path}: {_first_line(error)}") from error


def serves_cuda() -> bool:
    """Whether ONNX Runtime can use a CUDA device: the package onnxruntime-gpu is installed."""
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


@cache
def _tell_of_the_cpu() -> None:
    log.warning("ONNX Runtime serves no CUDA device here, so the CPU is used; install onnxruntime-gpu in its place.")


def load_onnx(folder: Path, card: ModelCard) -> OnnxNetwork:
    """The network of a bundle with an ONNX graph, after a look at the graph and a trial.

    Raises:
        InputError: a package is missing, or the graph is none that can be run safely, or does not fit the card.
    """
    if card.architecture.args:
        raise InputError(f"Architecture 'onnx' takes no arguments; its card gives {card.architecture.args}.")
    if folder.is_file():
        raise InputError(f"{folder} cannot hold an ONNX model; give a folder with card.json and {ONNX_FILE}.")
    file = OnnxFile.read(folder / ONNX_FILE)
    _check_digest(file, card)
    file.check(card)
    content = file.content(LARGEST_CONTENT)
    network = OnnxNetwork(
        file.path.absolute(),
        content,
        file.digest if content is None else hashlib.sha256(content).hexdigest(),
        classes=len(card.legend.classes),
        input_shape=file.input_shape,
    )
    _try_out(network, card)
    return network.eval()


def save_onnx(network: OnnxNetwork, folder: Path) -> str:
    """Write the graph into a folder that exists, and return its digest for the card."""
    if network.content is not None:
        (folder / ONNX_FILE).write_bytes(network.content)
        return network.digest
    file = OnnxFile.read(network.checked_path())
    if folder.resolve() != file.path.parent.resolve():
        for name in (ONNX_FILE, *file.external):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(network.path.parent / name, folder / name)
    return network.digest


def _check_digest(file: OnnxFile, card: ModelCard) -> None:
    if card.weights_sha256 is None:
        told = f'"weights_sha256": "{file.digest}"'
        raise InputError(f"The card beside {file.path} names no weights_sha256; if this is the graph, add {told}.")
    if file.digest != card.weights_sha256:
        raise InputError(
            f"{file.path} has digest {file.digest[:12]}, its card says {card.weights_sha256[:12]}: not the same model. "
            "geoseg.models.onnx_digest tells what a card has to say."
        )


def _try_out(network: OnnxNetwork, card: ModelCard) -> None:
    """Run one chip of zeros: what a graph declares of its output may be missing or wrong."""
    side = card.chip_px if card.fixed_chip else min(card.chip_px, 2 * card.halo_px + 8 * card.output_stride)
    height, width = side, side if card.fixed_chip else side + card.output_stride
    chip = np.zeros((1, len(card.bands), height, width), np.float32)
    session = network._session(torch.device("cpu"))
    try:
        [logits] = session.run(None, {session.get_inputs()[0].name: chip})
    except _failures() as error:
        raise InputError(
            f"{network.path} failed on a chip of {len(card.bands)} bands, {height} x {width} px; look whether bands, "
            f"output_stride and chip_px of its card are right. {_first_line(error)}"
        ) from error
    _check_made(network, np.asarray(logits), (height, width), card)


def _check_made(network: OnnxNetwork, logits: np.ndarray[Any, Any], size: tuple[int, int], card: ModelCard) -> None:
    if logits.ndim != 4 or logits.dtype != np.float32:
        raise InputError(
            f"{network.path} gives {logits.dtype} of shape {logits.shape}, expected float32 logits of 4 axes: chip, "
            "class, height, width."
        )
    check_classes(network.path, logits.shape[1], card)
    if logits.shape[2:] != size:
        found, given = (" x ".join(map(str, both)) for both in (logits.shape[2:], size))
        raise InputError(
            f"{network.path} gives logits of {found} px for a chip of {given} px; it must give one for each pixel: "
            "export it with the upsampling at its end."
        )


def _failures() -> tuple[type[Exception], ...]:
    """ONNX Runtime's exceptions; they have no base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = (each for each in vars(state).values() if isinstance(each, type) and issubclass(each, Exception))
    return (*own, RuntimeError, ValueError)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
