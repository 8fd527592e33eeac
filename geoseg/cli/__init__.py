"""The command line: a skin over `geoseg.pipeline`. One file per command; heavy imports wait until a command runs."""

from __future__ import annotations

import atexit
import gc
import logging
import sys
from typing import Annotated

import typer

from geoseg.cli import (
    area,
    change,
    demo,
    evaluate,
    evaluate_objects,
    export,
    info,
    instances,
    models,
    panoptic,
    plan,
    prompt,
    pseudo_label,
    sample,
    segment,
    stack,
    train,
    vectorize,
)
from geoseg.errors import GeosegError

STOPPED = (130, 143)  # the exit codes of Ctrl-C, from typer, and of SIGTERM

app = typer.Typer(
    name="geoseg",
    help="Satellite and aerial scenes of any size to seam-free land-cover GeoTIFFs and polygons.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("info")(info.info)
app.command("plan")(plan.plan)
app.command("segment")(segment.segment)
app.command("vectorize")(vectorize.vectorize)
app.command("instances")(instances.instances)
app.command("panoptic")(panoptic.panoptic)
app.command("prompt")(prompt.prompt)
app.command("change")(change.change)
app.command("stack")(stack.stack)
app.command("evaluate")(evaluate.evaluate)
app.command("evaluate-objects")(evaluate_objects.evaluate_objects)
app.command("train")(train.train)
app.command("pseudo-label")(pseudo_label.pseudo_label)
app.command("sample")(sample.sample)
app.command("area")(area.area)
app.command("export")(export.export)
app.command("models")(models.models)
app.command("demo")(demo.demo)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"geoseg {version('geoseg')}")
        raise typer.Exit


@app.callback()
def _main(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and what is logged on the way.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="%(levelname)s: %(message)s")


def _how_to_go_on(arguments: list[str]) -> str:
    if arguments[:1] == ["train"]:
        return "Run the same command with --resume to go on from the last checkpoint, if there is one yet."
    return "Run the same command again to go on; finished blocks are kept."


def main() -> None:
    """Run a command; errors become one or two sentences and an exit code, unless --debug asks for the traceback."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]  # it may stand anywhere
    debug = len(arguments) < len(sys.argv) - 1
    atexit.register(gc.freeze)  # to take apart all that was imported takes the interpreter half a second
    try:
        app(["--debug", *arguments] if debug else arguments, prog_name="geoseg")
    except SystemExit as stop:
        if stop.code in STOPPED:
            typer.echo(f"Stopped. {_how_to_go_on(arguments)}", err=True)
        raise
    except GeosegError as error:
        if debug:
            raise
        typer.echo(f"geoseg: {error}", err=True)
        sys.exit(error.exit_code)
