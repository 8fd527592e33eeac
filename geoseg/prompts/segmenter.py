"""Segment by prompt, in Python: a scene and a model, points, boxes or words, and answers that further points mend."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from shapely.geometry import Polygon

from geoseg.catalog import open_named_reader
from geoseg.errors import InputError
from geoseg.inference.fit import check_gsd, normalization_for, used_bands
from geoseg.models import Model, ModelCard
from geoseg.models.pooled import pool_factor
from geoseg.prompts.asked import LONLAT, Asked, Place, check_measured, names_of
from geoseg.prompts.cache import DEFAULT_GB, EmbeddingCache
from geoseg.prompts.chips import Lattice
from geoseg.prompts.everything import LEAST_SCORE, SPACING, Progress, find_everything
from geoseg.prompts.follow import Follower, Mask, Reply
from geoseg.prompts.load import DEFAULT, load_network
from geoseg.prompts.networks import BundleNetwork, Network
from geoseg.prompts.outline import Outline, one_part, outline
from geoseg.prompts.views import seen_in
from geoseg.prompts.words import find_named
from geoseg.raster.arrays import ArrayReader
from geoseg.raster.layers import Source as Given
from geoseg.raster.reader import SceneOptions, SceneReader

Point = tuple[float, float]
USUAL_VIEWS = 4  # of a chip of a small network, so that a click takes a fifth of a second and is worth more


@dataclass(frozen=True)
class Candidate:
    """One of the masks that may be meant.

    Attributes:
        score: the IoU with the object that the model expects, 0..1.
        polygon: in the scene's CRS, along the pixels' edges; empty where nothing was found.
        area: square metres; pixels where the scene has no CRS.
        is_whole: False where the object may go on beyond what was looked at.
    """

    score: float
    polygon: Polygon
    area: float
    is_whole: bool = True


@dataclass(frozen=True)
class Answer:
    """What was found for one object; `refine` asks again with one more point."""

    segmenter: PromptSegmenter
    asked: Asked
    reply: Reply

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """The likeliest first."""
        return tuple(self.segmenter.candidate(self.reply, number, self.asked) for number in self._ranked)

    @property
    def best(self) -> Candidate:
        """The likeliest candidate."""
        return self.segmenter.candidate(self.reply, self.reply.best, self.asked)

    def mask(self, candidate: int = 0) -> Mask:
        """A candidate, by its place in `candidates`, in pixels of the scene."""
        return self.segmenter.mask(self.reply, self._ranked[candidate], self.asked)

    @property
    def _ranked(self) -> list[int]:
        return [int(i) for i in np.argsort(-self.reply.scores, kind="stable")]

    def refine(self, x: float, y: float, *, positive: bool = True, candidate: int = 0, crs: object = LONLAT) -> Answer:
        """The answer with one more point.

        Args:
            x: longitude, or x in `crs`.
            y: latitude, or y in `crs`.
            positive: whether the point lies on the object, or beside it where the mask is too large.
            candidate: which one it mends, by its place in `candidates`.
            crs: of the point.

        Raises:
            InputError: the point lies off the scene or on nodata, or there is no such candidate.
        """
        if not 0 <= candidate < len(self.reply.scores):
            raise InputError(f"Candidate {candidate} is not among the {len(self.reply.scores)} there are, 0 first.")
        row, col = self.segmenter.pixels([(x, y)], crs)[0]
        asked = self.asked.with_point(row, col, positive=positive)
        reply = self.segmenter.follower.again(asked, self.reply, self._ranked[candidate])
        return replace(self, asked=asked, reply=reply)


@dataclass(frozen=True)
class PromptSegmenter:
    """A scene and a model that are asked for objects. Make it with `geoseg.prompt`.

    Attributes:
        follower: that asks the network.
        place: the scene's grid.
    """

    follower: Follower
    place: Place

    @classmethod
    def of(
        cls,
        scene: Given | Sequence[Given] | xr.DataArray,
        network: Network,
        *,
        reading: SceneOptions | None = None,
        cache_gb: float = DEFAULT_GB,
    ) -> PromptSegmenter:
        """Bring a scene and a network together; see `prompt`."""
        if not 0 <= cache_gb * 1e9 < math.inf:
            raise InputError(
                f"The cache of embeddings is 0 GB or more, not {cache_gb:g}; give what the disk has to spare, as in 20."
            )
        card = network.card
        reader = _opened(scene, reading)
        reader = reader.select(used_bands(card, reader.bands))
        check_gsd(card, reader.gsd_m)
        normalization = normalization_for(card, reader.bands, reader.dtype, scale=reader.scale, offset=reader.offset)
        base = pool_factor(card, reader.gsd_m)
        lattice = Lattice(reader.shape, card.chip_px, base, _first_level(card, reader.gsd_m, base))
        digest = None
        if isinstance(reader, SceneReader):
            seen = {"model": network.digest, "base": str(base), "normalization": repr(normalization)}
            digest = hashlib.sha256(json.dumps(reader.fingerprint() | seen, sort_keys=True).encode()).hexdigest()
        follower = Follower(reader, network, lattice, normalization, EmbeddingCache(digest, cache_gb))
        return cls(follower, Place.of(reader))

    def point(self, x: float, y: float, *, crs: object = LONLAT) -> Answer:
        """The object at a point.

        Args:
            x: longitude, or x in `crs`.
            y: latitude, or y in `crs`.
            crs: of the point, anything that pyproj knows; None for the scene's own.

        Raises:
            InputError: the point lies off the scene or on nodata.
        """
        return self.points([(x, y)], crs=crs)

    def points(
        self,
        points: Sequence[Point],
        labels: Sequence[bool] | None = None,
        *,
        box: tuple[float, float, float, float] | None = None,
        crs: object = LONLAT,
    ) -> Answer:
        """The object at some points, and maybe in a box.

        Args:
            points: longitude and latitude, or x and y in `crs`.
            labels: for each, whether it lies on the object or beside it; None for all on it.
            box: left, bottom, right, top around the object.
            crs: of points and box.

        Raises:
            InputError: a point lies off the scene or on nodata, or none lies on the object.
        """
        marks = [True] * len(points) if labels is None else list(labels)
        if len(marks) != len(points):
            raise InputError(f"There are {len(points)} points and {len(marks)} labels; give one label for each.")
        pixels = self.pixels(points, crs) if len(points) else np.zeros((0, 2))
        sides = None if box is None else self.place.box(box, crs)
        asked = Asked(pixels, np.array(marks, dtype=np.int64), sides)
        return Answer(self, asked, next(reply for _, reply in self.follower.ask([asked])))

    def box(self, left: float, bottom: float, right: float, top: float, *, crs: object = LONLAT) -> Answer:
        """The object in a box of longitudes and latitudes, or of `crs`.

        Raises:
            InputError: the box has no area, or lies off the scene.
        """
        return self.points([], box=(left, bottom, right, top), crs=crs)

    def text(self, words: str) -> gpd.GeoDataFrame:
        """All objects of the scene that a text names, as `id`, `score`, `area_m2` and polygons.

        Raises:
            InputError: the model takes no text.
        """
        return self.table(list(enumerate(find_named(self.follower, words, self._found), 1)))

    def everything(
        self, *, spacing: int = SPACING, least_score: float = LEAST_SCORE, progress: Progress | None = None
    ) -> gpd.GeoDataFrame:
        """All objects on which a point of a lattice falls, as `text` gives them, the surest first.

        Args:
            spacing: pixels of a chip between points; smaller objects may be missed.
            least_score: of what counts as found, 0 to 1.
            progress: called with step, chips done and chips in all.

        Raises:
            InputError: the spacing is not positive, or the least score is none.
        """
        found = find_everything(self.follower, self._found, spacing=spacing, least_score=least_score, progress=progress)
        return self.table(list(enumerate(found, 1)))

    def pixels(self, points: Sequence[Point], crs: object = LONLAT) -> NDArray[np.float64]:
        """(point, 2) row and column of points that lie on the scene where it was measured.

        Raises:
            InputError: one does not.
        """
        x, y = np.array(points, dtype=np.float64).reshape(-1, 2).T
        pixels, names = self.place.pixels(x, y, crs), names_of(points)
        self.place.check_on_scene(pixels, names)
        check_measured(self.follower.reader, pixels, names)
        return pixels

    def candidate(self, reply: Reply, number: int, asked: Asked) -> Candidate:
        """A candidate of a reply as a polygon."""
        return self._found(self.mask(reply, number, asked), float(reply.scores[number]), reply.is_whole)

    def mask(self, reply: Reply, number: int, asked: Asked) -> Mask:
        """A candidate of a reply in pixels of the scene: one part of them."""
        return one_part(self.follower.mask(reply, number), asked)

    def ask(self, objects: Sequence[Asked]) -> Iterator[tuple[int, Candidate]]:
        """The best candidate for each of many objects, by number, as they come."""
        for number, reply in self.follower.ask(objects):
            yield number, self.candidate(reply, reply.best, objects[number])

    def table(self, found: Sequence[tuple[Any, Candidate]]) -> gpd.GeoDataFrame:
        """Candidates by id as a table of polygons in the scene's CRS."""
        area = "area_px" if self.place.crs is None else "area_m2"
        columns = {
            "id": pd.Series([key for key, _ in found], dtype=object if not found else None),
            "score": np.array([one.score for _, one in found], dtype=np.float64),
            area: np.array([one.area for _, one in found], dtype=np.float64),
            "whole": np.array([one.is_whole for _, one in found], dtype=np.bool_),
        }
        return gpd.GeoDataFrame(columns, geometry=[one.polygon for _, one in found], crs=self.place.crs)

    def _found(self, mask: Mask, score: float, is_whole: bool) -> Candidate:
        found: Outline = outline(mask, self.place)
        return Candidate(score, found.polygon, found.area, is_whole)


def _opened(scene: Given | Sequence[Given] | xr.DataArray, reading: SceneOptions | None) -> SceneReader | ArrayReader:
    if isinstance(scene, xr.DataArray):
        return ArrayReader.of(scene, reading or SceneOptions())
    return open_named_reader(scene, reading)


def _first_level(card: ModelCard, gsd_m: float | None, base: int) -> int:
    """The level at which chips have about the pixels that a model of this project was made for."""
    if card.pool_to_m is None or gsd_m is None:
        return 0
    return max(0, round(math.log2(card.gsd_m / (gsd_m * base))))


def prompt(
    scene: Given | Sequence[Given] | xr.DataArray,
    model: str | os.PathLike[str] | Model | Network = DEFAULT,
    *,
    reading: SceneOptions | None = None,
    cache_gb: float = DEFAULT_GB,
    views: int | None = None,
) -> PromptSegmenter:
    """Open a scene to be segmented by prompt.

    Args:
        scene: path, VRT, URL, `catalog.yaml#name`, several files on one grid, or (band, y, x) with a geobox, as from
            `open_scene`, rioxarray, odc-stac, Zarr or netCDF; of a lazy one, the chips that are looked at are computed.
        model: a bundle that takes prompts, by name or path, or loaded; a folder or `hf:org/name` of a SAM, SAM 2 or
            SAM 3 model.
        reading: what the scene does not say.
        cache_gb: what embeddings may take in the cache folder; 0 keeps none. Those of an array are kept in memory only.
        views: of each chip, whose answers are averaged: 1, 4 (flips) or 8 (and quarter turns); each costs as much as
            the first. None for 4 of a bundle, 1 of a larger model.

    Raises:
        InputError: the scene or the model cannot be used, or do not fit.
    """
    network = load_network(model)
    usual = USUAL_VIEWS if isinstance(network, BundleNetwork) else 1
    seen = seen_in(network, usual if views is None else views)
    return PromptSegmenter.of(scene, seen, reading=reading, cache_gb=cache_gb)
