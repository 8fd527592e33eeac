"""Catalogue: scenes by name, in a YAML file that Intake can open too.

    name in catalogue ──load, check──▶ entry ──resolve──▶ path or URL, and what its files do not say

A synthetic entry is made on first use and kept in the user's cache.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import xarray as xr
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from geoseg import synthetic
from geoseg.errors import InputError
from geoseg.raster.arrays import normalized
from geoseg.raster.disk import cache_folder
from geoseg.raster.layers import Source as Given
from geoseg.raster.reader import SceneOptions, SceneReader
from geoseg.raster.scene import open_reader
from geoseg.synthetic import SyntheticScene, write_scene

MAX_BYTES = 2**20
_MAX_DEPTH = 16
_FOLDER = "{{ CATALOG_DIR }}"
_NAMED = re.compile(r"(?P<path>.+\.ya?ml)#(?P<name>.*)", re.IGNORECASE | re.DOTALL)
_SHIPPED = "data_catalog.yaml"

_log = logging.getLogger(__name__)

Checked = TypeVar("Checked", bound=BaseModel)
Number = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)


class SceneMetadata(_Strict):
    """What the files of a scene do not say; see `SceneOptions` for the first six. `labels`: file of the truth."""

    bands: dict[Text, Text] | None = None
    nodata: float | None = None
    valid_mask: Text | None = None
    scale: Number | None = None
    offset: Number | None = None
    gsd_m: Annotated[Number, Field(gt=0)] | None = None
    labels: Text | None = None
    network: bool = False
    license: str = ""
    attribution: str = ""


class RasterArgs(_Strict):
    """Path or URL of a raster, or several that are one scene."""

    urlpath: Text | Annotated[list[Text], Field(min_length=1)]


class RasterSource(_Strict):
    """A scene in files."""

    driver: Literal["rasterio"]
    description: str = ""
    args: RasterArgs
    metadata: SceneMetadata = SceneMetadata()


class SyntheticArgs(_Strict):
    """Size and seed of an invented scene; `later` is the seed of a second date of the same place."""

    rows: Annotated[int, Field(ge=1)]
    columns: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)]
    gsd_m: Annotated[Number, Field(ge=0.05, le=5)] = 0.5
    later: Annotated[int, Field(ge=0)] | None = None

    @property
    def scene(self) -> SyntheticScene:
        first = SyntheticScene((self.rows, self.columns), self.seed, self.gsd_m)
        return first if self.later is None else first.later(self.later)


class SyntheticSource(_Strict):
    """A scene that is made on first use."""

    driver: Literal["geoseg_synthetic"]
    description: str = ""
    args: SyntheticArgs
    metadata: SceneMetadata = SceneMetadata()


Source = Annotated[RasterSource | SyntheticSource, Field(discriminator="driver")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$")]


class _File(_Strict):
    metadata: dict[str, Any] = {}
    sources: dict[Name, Source]


@dataclass(frozen=True, slots=True)
class ResolvedSource:
    """What `open_reader` needs.

    Attributes:
        source: path or URL, or several.
        options: what the files do not say.
        labels: class raster or vector file of the truth, where there is one.
    """

    source: str | list[str]
    options: SceneOptions = field(default_factory=SceneOptions)
    labels: str | Path | None = None


@dataclass(frozen=True, slots=True)
class Catalog:
    """Scenes by name.

    Attributes:
        path: of the file.
        sources: entries by name, in the order of the file.
    """

    path: Path
    sources: Mapping[str, RasterSource | SyntheticSource]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.sources)

    def __getitem__(self, name: str) -> RasterSource | SyntheticSource:
        """The entry of that name.

        Raises:
            InputError: there is none.
        """
        if name not in self.sources:
            known = ", ".join(self.names) or "no scene"
            raise InputError(f"Scene {name!r} is not in the catalogue {self.path}; it has {known}.")
        return self.sources[name]

    def resolve(self, name: str) -> ResolvedSource:
        """Path or URL of an entry, with its options; a synthetic scene is made if it is not in the cache yet."""
        entry = self[name]
        options = self._options(entry.metadata)
        if isinstance(entry, SyntheticSource):
            scene, labels = _made(entry.args)
            return ResolvedSource(str(scene), options, labels)
        urls, truth = entry.args.urlpath, entry.metadata.labels
        found = self._filled(urls) if isinstance(urls, str) else [self._filled(url) for url in urls]
        return ResolvedSource(found, options, None if truth is None else self._filled(truth))

    def _options(self, stated: SceneMetadata) -> SceneOptions:
        bands = None if stated.bands is None else {name: self._filled(where) for name, where in stated.bands.items()}
        mask = None if stated.valid_mask is None else self._filled(stated.valid_mask)
        return SceneOptions(bands, stated.nodata, mask, stated.scale, stated.offset, stated.gsd_m)

    def _filled(self, text: str) -> str:
        """A path with the catalogue's folder put in."""
        if text.startswith(_FOLDER):
            text = str(self.path.absolute().parent) + text.removeprefix(_FOLDER)
        if "{{" in text or "{%" in text:
            raise InputError(f"{text!r} in {self.path} is a template; only a leading {_FOLDER!r} is understood.")
        return text


def load_catalog(path: str | os.PathLike[str]) -> Catalog:
    """Read and check a catalogue.

    Raises:
        InputError: it is missing, too large, no YAML, or not a catalogue; the message says where.
    """
    return Catalog(Path(path), load_checked(path, _File, what="catalogue of scenes").sources)


def load_checked(path: str | os.PathLike[str], model: type[Checked], *, what: str) -> Checked:
    """A YAML file as the model that checks it.

    Args:
        path: of the file.
        model: that refuses what it does not know.
        what: the word for such a file.

    Raises:
        InputError: it is missing, too large, no YAML, or not valid; the message says where.
    """
    path = Path(path)
    try:
        return model.model_validate(_load_yaml(_read(path, what)))
    except ValidationError as error:
        raise InputError(f"{path} is not a {what}: {_first_fault(error)}.") from error
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not YAML that can be used: {_one_line(error)}.") from error


def resolve(text: str) -> ResolvedSource:
    """What a scene's name stands for: `catalog.yaml#name` is looked up, anything else is itself.

    Raises:
        InputError: the catalogue or the name in it cannot be used.
    """
    named = _NAMED.fullmatch(text)
    if named is None:
        return ResolvedSource(text)
    return load_catalog(named["path"]).resolve(named["name"])


def resolve_labels(text: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """What the name of labels stands for: `catalog.yaml#name` for those of that entry, anything else for itself.

    Raises:
        InputError: the catalogue or the name in it cannot be used, or the entry has no labels.
    """
    if not isinstance(text, str) or not _NAMED.fullmatch(text):
        return text
    labels = resolve(text).labels
    if labels is None:
        raise InputError(f"{text} has no labels; state metadata.labels there, or give the file of the labels itself.")
    return labels


def open_named_reader(source: Given | Sequence[Given], options: SceneOptions | None = None) -> SceneReader:
    """`open_reader` that also knows `catalog.yaml#name`; options that are given outrank the catalogue's."""
    options = options or SceneOptions()
    if not isinstance(source, str):
        return open_reader(source, options)
    named = resolve(source)
    stated = {f.name: getattr(options, f.name) for f in fields(options) if getattr(options, f.name) is not None}
    return open_reader(named.source, replace(named.options, **stated))


def open_scene(
    source: Given | Sequence[Given] | xr.DataArray,
    *,
    bands: Mapping[str, str] | None = None,
    nodata: float | None = None,
    valid_mask: str | None = None,
    scale: float | None = None,
    offset: float | None = None,
    gsd_m: float | None = None,
) -> xr.DataArray:
    """A scene as a lazy DataArray (band, y, x) with a geobox; a chunk is read when it is computed.

    Args:
        source: path, address, `catalog.yaml#name`, list of files, folder of band files, or a DataArray to be checked.
        bands: name -> band number ("1") or file ("B04.jp2", "nir.tif:1").
        nodata: stored value that means "not measured".
        valid_mask: raster on the scene's grid, 0 = not measured.
        scale: value = pixel * scale + offset.
        offset: see `scale`.
        gsd_m: ground sample distance in metres.

    Returns:
        The stored numbers, with band names in `band` and, where the scene has nodata or a mask, `valid` (y, x).

    Raises:
        InputError: what is given cannot be read as one scene; the message says why and what to do.
    """
    options = SceneOptions(bands=bands, nodata=nodata, valid_mask=valid_mask, scale=scale, offset=offset, gsd_m=gsd_m)
    if isinstance(source, xr.DataArray):
        return normalized(source, options)
    return open_named_reader(source, options).to_xarray()


def default_catalog() -> Path:
    """The catalogue that ships: inside the installed package, or at the root of a checkout."""
    here = Path(__file__).resolve().parent
    return next((f / _SHIPPED for f in (here, here.parent) if (f / _SHIPPED).is_file()), here / _SHIPPED)


def _made(args: SyntheticArgs) -> tuple[Path, Path]:
    """Files of a synthetic scene and of its labels, made now if this version has not made them yet."""
    folder = cache_folder()
    stem = f"synthetic-{args.rows}x{args.columns}-{_digest(args)}"
    scene, labels = folder / f"{stem}.tif", folder / f"{stem}-labels.tif"
    if scene.is_file() and labels.is_file():
        return scene, labels
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Cache folder {folder} cannot be made ({error.strerror}); set GEOSEG_CACHE.") from error
    _log.info("Making a synthetic scene of %d x %d pixels, once, in %s.", args.rows, args.columns, folder)
    write_scene(args.scene, scene, labels=labels)
    return scene, labels


def _digest(args: SyntheticArgs) -> str:
    """Changes with the arguments, with geoseg's version and, in a checkout, with the code that draws."""
    digest = hashlib.sha256(json.dumps([version("geoseg"), args.model_dump()], sort_keys=True).encode())
    for module in sorted(Path(synthetic.__file__).parent.glob("*.py")):
        digest.update(module.read_bytes())
    return digest.hexdigest()[:16]


def _read(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        hint = f"; the one that ships with geoseg is {default_catalog()}" if path.name == _SHIPPED else ""
        raise InputError(f"{what.capitalize()} {path} does not exist{hint}.") from error
    except OSError as error:
        raise InputError(f"{what.capitalize()} {path} cannot be read: {error.strerror}.") from error
    if len(content) > MAX_BYTES:
        raise InputError(f"{path} has more than {MAX_BYTES} bytes, the most that a {what} may have.")
    return content


class _Loader(yaml.SafeLoader):
    """SafeLoader without aliases, which can blow up a small file, and without keys that hide earlier ones."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(problem="anchors and aliases are not allowed", problem_mark=event.start_mark)
        if self.depth >= _MAX_DEPTH:
            problem = f"it is nested more than {_MAX_DEPTH} deep"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} appears twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _load_yaml(content: bytes) -> Any:
    return yaml.load(content, Loader=_Loader)


def _first_fault(error: ValidationError) -> str:
    """The first; where several forms are allowed, of the form that it came closest to."""
    faults = error.errors()
    fault = max((one for one in faults if one["loc"][:1] == faults[0]["loc"][:1]), key=lambda one: len(one["loc"]))
    drivers = ("rasterio", "geoseg_synthetic")
    parts = (str(part) for part in fault["loc"] if part not in drivers)
    where = ".".join(part for part in parts if "[" not in part) or "the whole file"  # types of Python have brackets
    problem = _in_plain_words(fault["type"], fault["input"], fault.get("ctx", {}))
    if fault["type"].startswith("union_tag"):
        problem = f"driver is one of {', '.join(drivers)}"
    return f"{where}: {problem or fault['msg'].removeprefix('Value error, ')}"


def _in_plain_words(kind: str, given: Any, limits: Mapping[str, Any]) -> str | None:
    """What pydantic says in words of Python; None where its own will do."""
    match kind:
        case "extra_forbidden":
            return "unknown key"
        case "missing":
            return "this key is missing"
        case "too_short":
            return f"it needs {limits['min_length']} or more entries, not {limits['actual_length']}"
        case "string_too_short":
            return "it is empty"
        case "model_type" | "model_attributes_type" | "dict_type" | "dataclass_type":
            return f"keys with values are needed (key: value), not {_shown(given)}"
        case "list_type" | "tuple_type":
            return f"a list is needed ([...], or a line with - for each entry), not {_shown(given)}"
        case "string_pattern_mismatch" if limits["pattern"].startswith("^#"):
            return f"a color is written as in '#1b7837', not {_shown(given)}"
        case "string_pattern_mismatch":
            space = ", spaces" if " " in limits["pattern"] else ""
            signs = f"letters, digits{space} and _ . -"
            return f"a name has {signs}, begins with a letter or digit, and is not too long; {_shown(given)} is none"
    return None


def _shown(given: Any) -> str:
    return {list: "a list", dict: "keys with values", type(None): "nothing"}.get(type(given), repr(given)[:60])


def _one_line(error: Exception) -> str:
    """A parser's message with its line, without the excerpt."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split()).rstrip(".")
