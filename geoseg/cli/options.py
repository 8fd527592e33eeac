"""Options that several commands share, and how their text is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from geoseg.errors import InputError

if TYPE_CHECKING:
    from geoseg.change.dates import DateOptions
    from geoseg.inference.plan import RunOptions
    from geoseg.models import Model
    from geoseg.pipeline import Progress
    from geoseg.raster.reader import SceneOptions
    from geoseg.vector.options import VectorOptions

Bands = Annotated[
    str | None,
    typer.Option(help="Which band is which: red=1,green=2,blue=3,nir=4, or a file each: red=B04.jp2,nir=B08.jp2."),
]
Nodata = Annotated[float | None, typer.Option(help="Stored value that means 'not measured'.")]
ValidMask = Annotated[Path | None, typer.Option(help="Raster on the same grid; 0 is 'not measured'.")]
Scale = Annotated[float | None, typer.Option(help="Real value = pixel * SCALE + OFFSET.")]
Offset = Annotated[float | None, typer.Option(help="See --scale.")]
Gsd = Annotated[
    float | None, typer.Option("--gsd", help="Pixel size on the ground in metres, if the file does not tell.")
]
Scenes = Annotated[list[str], typer.Argument(help="File, VRT, URL, catalog.yaml#name, or several files on one grid.")]
ModelNames = Annotated[
    list[str], typer.Option("--model", help="Name (see `geoseg models`) or path of a bundle; several are averaged.")
]
Views = Annotated[int, typer.Option(help="Average 4 (flips) or 8 (and quarter turns) views; slower, often better.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")]


_polygons = partial(typer.Option, rich_help_panel="Polygons")
_LAZY = {
    "SceneOptions": object,
    "RunOptions": object,
    "VectorOptions": object,
    "DateOptions": object,
} | globals()  # their modules load when a command runs


def reads_and_runs(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of every scene and run; it gets them as two values, `reading` and `run`."""
    return _with_shared(command, _reading_and_run, ("reading", "run"))


def draws(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of polygons; it gets them as one value, `drawing`."""
    return _with_shared(command, _drawing, ("drawing",))


def puts_dates_together(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of how dates come together; it gets them as one value, `together`."""
    return _with_shared(command, _together, ("together",))


def _with_shared(
    command: Callable[..., None], parse: Callable[..., tuple[Any, ...]], names: tuple[str, ...]
) -> Callable[..., None]:
    """A command with the options that `parse` takes, in place of the values that it gives."""
    found = signature(command, eval_str=True, globals=_LAZY | command.__globals__).parameters.values()
    own = [parameter for parameter in found if parameter.name not in names]
    shared = list(signature(parse, eval_str=True, globals=_LAZY).parameters.values())

    def with_options(**given: Any) -> None:
        values = parse(**{option.name: given.pop(option.name) for option in shared})
        command(**given, **dict(zip(names, values, strict=True)))

    parameters = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in own + shared]
    with_options.__name__, with_options.__doc__ = command.__name__, command.__doc__
    with_options.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options


def _reading_and_run(
    *,
    bands: Bands = None,
    nodata: Nodata = None,
    valid_mask: ValidMask = None,
    scale: Scale = None,
    offset: Offset = None,
    gsd: Gsd = None,
    aoi: Annotated[str | None, typer.Option(help="Polygons; only what lies within is segmented and compared.")] = None,
    resample: Annotated[bool, typer.Option("--resample", help="Work at the model's resolution if need be.")] = False,
    pool: Annotated[
        int | None, typer.Option(help="The model sees means of N x N pixels; default: by its card.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    engine: Annotated[str, typer.Option(help="auto, torch, openvino or onnxruntime.")] = "auto",
    chip: Annotated[int | None, typer.Option(help="Side of a chip in pixels.")] = None,
    halo: Annotated[str | None, typer.Option(help="Pixels of context around a core, or 'exact'.")] = None,
    block: Annotated[int | None, typer.Option(help="Side of a block in pixels; rounded down to whole cores.")] = None,
    memory: Annotated[float | None, typer.Option(help="What the run may hold in memory, in GB.")] = None,
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
    scheduler: Annotated[
        str | None, typer.Option(help="Address (tcp://host:port) or scheduler file of a dask cluster that computes.")
    ] = None,
) -> tuple[SceneOptions, RunOptions]:
    from geoseg.inference.plan import RunOptions

    run = RunOptions(
        aoi=aoi,
        resample=resample,
        pool=pool,
        device=device,
        precision=precision,
        engine=engine,
        chip=chip,
        halo=parse_halo(halo),
        block=block,
        memory_gb=memory,
        workers=workers,
        scheduler=scheduler,
    )
    return scene_options(bands, nodata, valid_mask, scale, offset, gsd), run


def _drawing(
    *,
    classes: Annotated[str | None, _polygons(help="Classes or groups, as in building,water,vegetation.")] = None,
    connectivity: Annotated[int, _polygons(help="4: pixels share edges; 8: edges or corners.")] = 4,
    min_area: Annotated[float, _polygons(help="Leave out polygons smaller than this, in square metres.")] = 0.0,
    fill_holes: Annotated[
        float, _polygons(help="Give parts smaller than this, in square metres, to the neighbour they touch most.")
    ] = 0.0,
    simplify: Annotated[
        float, _polygons(metavar="M", help="Simplify borders by a tolerance in metres; neighbours keep sharing them.")
    ] = 0.0,
    smooth: Annotated[str | None, _polygons(help="Classes to smooth, as in water,vegetation.")] = None,
    regularize: Annotated[
        str | None, _polygons(help="Classes that get straight walls and right angles, as in building.")
    ] = None,
    split: Annotated[
        str | None, _polygons(help="Classes whose touching objects become polygons of their own, as in building.")
    ] = None,
    stats: Annotated[
        list[Path] | None,
        _polygons(help="Raster whose mean, standard deviation, min and max each polygon gets; may be repeated."),
    ] = None,
    date: Annotated[str | None, _polygons(help="When the scene was taken, as in 2024-06-30.")] = None,
    single_layer: Annotated[bool, _polygons("--single-layer", help="One layer for all classes.")] = False,
    append: Annotated[
        bool, _polygons("--append", help="Add to a GeoPackage that exists; --overwrite replaces the same source.")
    ] = False,
    partition: Annotated[
        str | None, _polygons(help="GeoParquet as a folder: class, or tile=SIDE in units of the CRS.")
    ] = None,
) -> tuple[VectorOptions]:
    from geoseg.vector.options import VectorOptions

    drawing = VectorOptions(
        classes=listed(classes),
        connectivity=connectivity,  # type: ignore[arg-type]  # it refuses others
        min_area_m2=min_area,
        fill_holes_m2=fill_holes,
        simplify_m=simplify,
        smooth=listed(smooth) or (),
        regularize=listed(regularize) or (),
        split=listed(split) or (),
        stats=stats or (),
        date=date,
        single_layer=single_layer,
        append=append,
        partition=partition,
    )
    return (drawing,)


def check_undrawn(drawing: VectorOptions) -> None:
    """Refuse options of polygons where none are written.

    Raises:
        InputError: it names the first.
    """
    given = next((f.name for f in fields(drawing) if getattr(drawing, f.name) != f.default), None)
    if given is not None:
        option = "--" + re.sub("_m2?$", "", given).replace("_", "-")
        raise InputError(
            f"{option} is for polygons, which only --polygons FILE writes; give that too, or leave it out."
        )


def scene_options(
    bands: str | None,
    nodata: float | None,
    valid_mask: Path | None,
    scale: float | None,
    offset: float | None,
    gsd: float | None,
) -> SceneOptions:
    """What the user states about a scene, as one value."""
    from geoseg.raster.reader import SceneOptions

    mask = None if valid_mask is None else str(valid_mask)
    return SceneOptions(parse_bands(bands), nodata, mask, scale, offset, gsd)


def parse_halo(text: str | None) -> int | Literal["exact"] | None:
    if text is None or text == "exact":
        return "exact" if text else None
    try:
        return int(text)
    except ValueError:
        raise InputError(f"--halo is a number of pixels or 'exact', not {text!r}.") from None


def parse_bands(text: str | None) -> dict[str, str] | None:
    """`red=1,nir=B08.jp2` as a mapping; a comma within a file name is kept."""
    if text is None:
        return None
    pairs = [part.partition("=") for part in re.split(r",(?=[A-Za-z0-9_]+=)", text)]
    wrong = next(("".join(pair) for pair in pairs if not all(pair)), None)
    if wrong is not None:
        raise InputError(f"--bands takes name=number or name=file, separated by commas; {wrong!r} is neither.")
    names = [name.strip() for name, _, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"--bands names {twice!r} {names.count(twice)} times; name each band once.")
    return {name: value.strip() for name, (_, _, value) in zip(names, pairs, strict=True)}


def model_of(names: list[str], views: int) -> str | Model:
    """The model that a run uses: a name, or an ensemble."""
    if len(names) == 1 and views == 1:
        return names[0]
    from geoseg.models.ensemble import ensemble

    return ensemble(names, views=views)


def listed(text: str | None) -> list[str] | None:
    """`building,water` as names; None where nothing was given."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _together(
    *,
    times: Annotated[
        str | None, typer.Option(help="Of the dates, as in 2016,2018-06,2020-06-01; else from the files' names.")
    ] = None,
    scenes: Annotated[bool, typer.Option("--scenes", help="All dates are scenes, whatever their tags.")] = False,
    maps: Annotated[bool, typer.Option("--maps", help="All dates are class maps, whatever their tags.")] = False,
    extent: Annotated[str, typer.Option(help="intersection or union of the dates.")] = "intersection",
    resolution: Annotated[float | None, typer.Option(help="Of the common grid, in units of its CRS.")] = None,
    coregister: Annotated[bool, typer.Option("--coregister", help="Move scenes onto the first.")] = False,
    radiometry: Annotated[
        str, typer.Option(help="Put scenes in the light of the first: none, mad or histogram.")
    ] = "none",
    masks: Annotated[
        str | None, typer.Option(help="A raster for each date, 0 where the ground is hidden: a.tif,-,c.tif.")
    ] = None,
    qa_band: Annotated[int | None, typer.Option(help="Number of the band of quality flags in each file.")] = None,
    qa_bits: Annotated[str | None, typer.Option(help="Bits of it that hide the ground, as in 1,2,3.")] = None,
    qa_values: Annotated[str | None, typer.Option(help="Values of it that hide the ground, as in 3,8,9,10.")] = None,
) -> tuple[DateOptions]:
    from geoseg.change.clouds import CloudOptions
    from geoseg.change.dates import DateOptions

    if scenes and maps:
        raise InputError("--scenes and --maps exclude each other.")
    if extent not in ("intersection", "union"):
        raise InputError(f"--extent is intersection or union, not {extent!r}.")
    given = listed(times)
    clouds = CloudOptions(
        masks=tuple(listed(masks) or ()),
        qa_band=qa_band,
        qa_bits=_numbers("--qa-bits", qa_bits),
        qa_values=_numbers("--qa-values", qa_values),
    )
    together = DateOptions(
        times=None if given is None else tuple(given),
        kind="scenes" if scenes else "maps" if maps else "auto",
        extent="union" if extent == "union" else "intersection",
        resolution=resolution,
        coregister=coregister,
        radiometry=radiometry,  # type: ignore[arg-type]  # checked there
        clouds=clouds,
    )
    return (together,)


def _numbers(option: str, text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in listed(text) or ())
    except ValueError:
        raise InputError(f"{option} takes whole numbers, as in 1,2,3, not {text!r}.") from None


def one_or_many(scenes: list[str]) -> str | list[str]:
    return scenes[0] if len(scenes) == 1 else scenes


@contextmanager
def progress_bar(*, of_pixels: bool = True) -> Iterator[Progress]:
    """A bar on stderr with time left, and pixels per second where these are counted; silent where it is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%  {task.fields[speed]}"),
        TimeRemainingColumn(compact=True),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        tasks: dict[str, TaskID] = {}

        def report(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bar.add_task(step, total=total, completed=done, speed="")
            task = bar.tasks[tasks[step]]
            speed = f"{task.speed / 1e6:.2f} Mpx/s" if task.speed and of_pixels else ""
            bar.update(tasks[step], completed=done, speed=speed)

        yield report
