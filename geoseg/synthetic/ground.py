"""What lies at each position: lots' contents first, then streets, river and roads over them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from geoseg.synthetic.buildings import draw_hall, draw_house, draw_vacant
from geoseg.synthetic.canvas import Canvas, Site
from geoseg.synthetic.land import draw_bare, draw_field, draw_park, draw_vines, draw_wood
from geoseg.synthetic.lots import Kind, Lots
from geoseg.synthetic.noise import Floats
from geoseg.synthetic.place import Place
from geoseg.synthetic.ways import draw_river, draw_roads, draw_streets

_DRAW: dict[Kind, Callable[[Canvas, Site], None]] = {
    Kind.WOOD: draw_wood,
    Kind.PARK: draw_park,
    Kind.BARE: draw_bare,
    Kind.HOUSE: draw_house,
    Kind.VACANT: draw_vacant,
    Kind.HALL: draw_hall,
    Kind.FIELD: draw_field,
    Kind.VINES: draw_vines,
}


def draw_ground(place: Place, x: Floats, y: Floats) -> Canvas:
    """The ground without trees at x (1, columns) and y (rows, 1), or at points (n,)."""
    canvas = Canvas.blank(place, x, y)
    u, v = (a.ravel() for a in place.bend(x, y))
    lots = Lots.around(place, u, v)
    block, road = lots.blocks.locate(u, v)
    lot, street = lots.locate(block, u, v)
    kind = lots.kind[lot]
    for member, draw in _DRAW.items():
        at = np.flatnonzero(kind == member)
        if at.size:
            draw(canvas, Site.of(canvas, lots, at, (lot[at], u[at], v[at])))
    draw_streets(canvas, lots, block, street)
    draw_river(canvas, lots, block, (u, v))
    draw_roads(canvas, lots, block, road)
    return canvas
