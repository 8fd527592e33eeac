"""The file of an ONNX model: read, and refused before anything that it names is opened.

A graph comes from strangers. Three things in it could reach beyond its bundle: names of external data (also absolute,
through `..`, symbolic links, or the names by which ONNX Runtime means an address in memory), operators of a custom
library, and operators of Microsoft's own domains, some of which name files. None of these is let through.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.errors import InputError
from geoseg.models.find import ONNX_FILE

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto

    from geoseg.models.card import ModelCard

LARGEST_FILE = 2**31 - 1  # protobuf reads no more; larger models keep their weights in external data
STANDARD = ("", "ai.onnx", "ai.onnx.ml")
PLAIN = re.compile(r"\w([\w.+ -]*\w)?(/\w([\w.+ -]*\w)?)*")
NO_LOGITS = ("Softmax", "Sigmoid", "ArgMax")
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization")


def needed() -> None:
    """Check that the packages for ONNX models are there.

    Raises:
        InputError: one is not.
    """
    try:
        for name in ("onnx", "onnxruntime"):
            import_module(name)
    except ImportError as error:
        raise InputError(
            f"An ONNX model needs the packages onnx and onnxruntime, and {error.name} is not installed; "
            "pip install 'geoseg[onnx]'."
        ) from error


@dataclass(frozen=True)
class OnnxFile:
    """A graph as read, with the names of its external data; nothing of these was opened yet.

    Attributes:
        path: of the file.
        data: its bytes.
        model: the same, parsed.
        external: names of files in the same folder, sorted.
    """

    path: Path
    data: bytes
    model: ModelProto
    external: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> OnnxFile:
        """Read and check that it reaches nothing outside its folder.

        Raises:
            InputError: it is missing, no ONNX file, or names other folders, devices or libraries.
        """
        needed()
        data = _bytes(path)
        model = _parsed(data, path)
        names = {_location(tensor, path) for tensor in _external_tensors(model)}
        _check_operators(model, path)
        return cls(path, data, model, tuple(sorted(names)))

    @property
    def digest(self) -> str:
        """SHA-256 of the file, as `sha256sum model.onnx` has it.

        With external data: of the lines that `sha256sum model.onnx first.bin second.bin` prints, in order of names.
        """
        own = hashlib.sha256(self.data).hexdigest()
        if not self.external:
            return own
        listing = f"{own}  {ONNX_FILE}\n"
        for name in self.external:
            with (self.path.parent / name).open("rb") as file:
                listing += f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n"
        return hashlib.sha256(listing.encode()).hexdigest()

    def content(self, largest: int) -> bytes | None:
        """The whole model as the bytes of one ONNX file; None where that has more than `largest` bytes."""
        spans = [(tensor, *_span(tensor, self.path)) for tensor in _external_tensors(self.model)]
        if len(self.data) + sum(length for *_, length in spans) > largest:
            return None
        if not spans:
            return self.data
        for tensor, file, offset, length in spans:
            with file.open("rb") as opened:
                opened.seek(offset)
                tensor.raw_data = opened.read(length)
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
        return bytes(self.model.SerializeToString(deterministic=True))

    def check(self, card: ModelCard) -> None:
        """Check what the graph declares of its input and output against the card.

        Raises:
            InputError: it has more than one of them, or one of another type, size or number of channels.
        """
        chips, logits = self._input, self._output
        for what, value in (("input", chips), ("output", logits)):
            _check_type(what, value, self.path)
        batch, bands, *size = _dims(chips) or [None] * 4
        if batch not in (None, 1):
            raise InputError(f"{self.path} takes {batch} chips at once only; export it with a dynamic batch or of 1.")
        _check_channels(self.path, bands, _dims(logits)[1:2], card)
        chip = [card.chip_px] * 2 if card.fixed_chip else [None, None]
        if any(given is not None and given != own for given, own in zip(size, chip, strict=True)):
            told = f"chip_px {card.chip_px} and fixed_chip {str(card.fixed_chip).lower()}"
            only = " x ".join(str(side or "any") for side in size)
            raise InputError(
                f"{self.path} takes chips of {only} px only, and its card says {told}; export it with dynamic "
                'height and width, or, where the two are one, give that as chip_px and say "fixed_chip": true.'
            )
        self._check_is_logits(logits.name)

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """Chips, bands, height and width that the graph takes; None for what is open."""
        return tuple(_dims(self._input)) or (None,) * 4

    @property
    def _input(self) -> ValueInfoProto:
        weights = {tensor.name for tensor in self.model.graph.initializer}
        return self._only("input", [value for value in self.model.graph.input if value.name not in weights])

    @property
    def _output(self) -> ValueInfoProto:
        return self._only("output", list(self.model.graph.output))

    def _only(self, what: str, values: list[ValueInfoProto]) -> ValueInfoProto:
        if len(values) != 1:
            names = ", ".join(value.name for value in values)
            raise InputError(
                f"{self.path} has {len(values)} {what}s ({names}) where 1 is expected, chips in and logits out; "
                "cut the others off with onnx.utils.extract_model."
            )
        return values[0]

    def _check_is_logits(self, name: str) -> None:
        for node in self.model.graph.node:
            if name in node.output and node.op_type in NO_LOGITS:
                ends = f"{[self._input.name]}, {list(node.input[:1])}"
                raise InputError(
                    f"The output {name!r} of {self.path} is made by {node.op_type}, where logits are expected; cut it "
                    f"off with onnx.utils.extract_model({ONNX_FILE!r}, 'logits.onnx', {ends})."
                )


def onnx_digest(file: str | Path) -> str:
    """What a card has to say as `weights_sha256` for an ONNX file, external data included.

    To make a bundle, put the file as `model.onnx` into a folder, beside it what it names as external data, and a
    `card.json` as that of any model that ships, with `"architecture": {"name": "onnx"}` and with this digest:

        python -c "from geoseg.models import onnx_digest; print(onnx_digest('mine/model.onnx'))"

    The card has to state what a graph does not: bands with their statistics, legend, output stride, receptive field
    and halo. `geoseg.models.receptive` measures the last two.

    Args:
        file: of any name; the digest does not depend on it.

    Raises:
        InputError: it is missing, no ONNX file, or names other folders, devices or libraries.
    """
    return OnnxFile.read(Path(file)).digest


def with_open_paths(content: bytes) -> bytes:
    """The graph with weights by their size, layers as averages, and no biases.

    Zeros then stay zeros, and no path is hidden by a closed ReLU, by terms that cancel, or by rounding.
    """
    from onnx import ModelProto

    model = ModelProto.FromString(content)
    tensors, alias = _constants(model.graph)
    for node in model.graph.node:
        if node.op_type in LAYERS:
            for position, name in enumerate(node.input[1:4], start=1):
                while name in alias:
                    name = alias[name]
                if name in tensors:
                    _open(tensors[name], is_weight=position == 1)
    return bytes(model.SerializeToString())


def _constants(graph: GraphProto) -> tuple[dict[str, TensorProto], dict[str, str]]:
    """Float tensors by name, and names that stand for other names."""
    from onnx import TensorProto

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    tensors |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    alias = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}
    return {name: each for name, each in tensors.items() if each.data_type == TensorProto.FLOAT}, alias


def _open(tensor: TensorProto, *, is_weight: bool) -> None:
    from onnx import numpy_helper

    values = np.abs(numpy_helper.to_array(tensor)) * is_weight
    if values.ndim > 1:
        values = values * (len(values) / max(values.sum(), 1e-12))  # so that numbers neither grow nor vanish with depth
    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise InputError(f"The graph {path} is missing, or no regular file; put it beside the card.")
    if (size := path.stat().st_size) > LARGEST_FILE:
        raise InputError(
            f"{path} has {size} bytes, and an ONNX file at most {LARGEST_FILE}; save it with external data beside it."
        )
    return path.read_bytes()


def _parsed(data: bytes, path: Path) -> ModelProto:
    from google.protobuf.message import DecodeError
    from onnx import ModelProto

    try:
        model: ModelProto = ModelProto.FromString(data)
    except DecodeError as error:
        raise InputError(f"{path} is no ONNX file ({error}); export the network with torch.onnx.export.") from error
    if not (model.ir_version and model.graph.node):
        raise InputError(f"{path} is no ONNX file: it holds no graph; export the network with torch.onnx.export.")
    return model


def _parts(message: Any) -> Iterator[Any]:
    """A protobuf message and all within, in whatever field, so that none can be forgotten."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _parts(part)


def _external_tensors(model: ModelProto) -> list[TensorProto]:
    from onnx import TensorProto

    tensors = (part for part in _parts(model) if isinstance(part, TensorProto))
    return [tensor for tensor in tensors if tensor.external_data or tensor.data_location == TensorProto.EXTERNAL]


def _location(tensor: TensorProto, path: Path) -> str:
    """Name of the tensor's file, which lies in the folder of `path` or below; not opened."""
    names = [entry.value for entry in tensor.external_data if entry.key == "location"]
    name = names[0] if len(names) == 1 else ""
    folder = path.parent.resolve()
    if not PLAIN.fullmatch(name) or not (folder / name).resolve().is_relative_to(folder):
        raise InputError(
            f"{path} names external data at {', '.join(map(repr, names)) or 'no place'}; only files within its own "
            "folder are read. Save it in one file: onnx.save_model(onnx.load(old), new, save_as_external_data=False)."
        )
    if not (folder / name).is_file():
        raise InputError(f"{path} names external data {name!r}, which is missing in {path.parent}; copy it there.")
    return name


def _span(tensor: TensorProto, path: Path) -> tuple[Path, int, int]:
    """File, offset and length in bytes of a tensor's external data."""
    told = {entry.key: entry.value for entry in tensor.external_data}
    file = path.parent / told["location"]
    size = file.stat().st_size
    try:
        offset = int(told.get("offset", 0))
        length = int(told.get("length", size - offset))
    except ValueError:
        offset = length = -1
    if offset < 0 or length < 0 or offset + length > size:
        told.pop("location")
        raise InputError(
            f"{file} has {size} bytes, and the tensor {tensor.name!r} lies there at {told}; copy the whole file again."
        )
    return file, offset, length


def _check_operators(model: ModelProto, path: Path) -> None:
    from onnx import NodeProto

    own = {(function.domain, function.name) for function in model.functions}
    own = {name for name in own if not name[0].startswith("com.m")}  # Microsoft's keep their own meaning
    for node in _parts(model):
        if isinstance(node, NodeProto) and node.domain not in STANDARD and (node.domain, node.op_type) not in own:
            raise InputError(
                f"{path} has the operator {node.op_type} of {node.domain!r}; only those of ONNX itself are run, and no "
                "library of others is loaded. Export it with standard operators."
            )


def _check_type(what: str, value: ValueInfoProto, path: Path) -> None:
    from onnx import TensorProto

    tensor = value.type.tensor_type
    dims = _dims(value)
    if tensor.elem_type != TensorProto.FLOAT:
        names = {number: name.lower() for name, number in TensorProto.DataType.items()}
        found = names.get(tensor.elem_type, f"type {tensor.elem_type}")
        raise InputError(
            f"The {what} {value.name!r} of {path} is {found}, expected float32; export it in float32, or convert it "
            "with keep_io_types=True (onnxconverter-common)."
        )
    if tensor.HasField("shape") and len(dims) != 4:
        raise InputError(
            f"The {what} {value.name!r} of {path} has {len(dims)} axes, expected 4: chip, channel, height, width."
        )


def _dims(value: ValueInfoProto) -> list[int | None]:
    """Sizes of a tensor's axes; None for those that are open. Empty where nothing is said."""
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.dim_value > 0 else None for dim in dims]


def _check_channels(path: Path, bands: int | None, classes: list[int | None], card: ModelCard) -> None:
    if bands not in (None, len(card.bands)):
        names = ", ".join(band.name for band in card.bands)
        raise InputError(
            f"{path} takes {bands} channels, and its card names {len(card.bands)} bands ({names}); state them all."
        )
    check_classes(path, classes[0] if classes else None, card)


def check_classes(path: Path, found: int | None, card: ModelCard) -> None:
    """Check the number of channels that come out.

    Raises:
        InputError: the legend has another number of classes.
    """
    classes = card.legend.classes
    if found not in (None, len(classes)):
        names = ", ".join(each.name for each in classes)
        raise InputError(
            f"{path} gives {found} channels, and the legend of its card has {len(classes)} classes ({names}); "
            "state one for each channel, in their order."
        )
