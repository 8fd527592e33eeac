"""geoseg models: the bundles that ship, and the user's own."""

from __future__ import annotations

from typing import Annotated

import typer


def models(as_json: Annotated[bool, typer.Option("--json", help="Print the whole cards as JSON.")] = False) -> None:
    """List the models by name, with what they need and how good they were on places not trained on."""
    import json

    from geoseg.models import list_models, load_card

    cards = {name: load_card(path) for name, path in list_models().items()}
    if as_json:
        typer.echo(json.dumps({name: card.model_dump(mode="json") for name, card in cards.items()}, indent=1))
        return
    for name, card in cards.items():
        bands = ", ".join(band.name + ("?" if band.optional else "") for band in card.bands)
        low, high = card.gsd_range_m
        typer.echo(f"{name} {card.version}: {card.description}")
        answers = "for geoseg prompt" if card.takes_prompts else f"classes {', '.join(card.legend.names)}"
        typer.echo(f"  bands {bands}; {low:g} to {high:g} m; {answers}")
        for place, scores in card.scores.items():
            typer.echo(f"  {place}: " + ", ".join(f"{what} {value:.2f}" for what, value in scores.items()))
