"""Mosaic of staged blocks as VRT text: one VRT per row of blocks, one over the rows.

rasterio has no way to write category names; a VRT has, and GDAL's drivers copy what it says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from geoseg.grid.window import Window
from geoseg.legend import NODATA, Legend
from geoseg.raster.blocks import TILE, Block
from geoseg.raster.georeference import Georef
from geoseg.raster.staging import Staging


@dataclass(frozen=True, slots=True)
class Source:
    """A file that fills a window of a mosaic, pixel for pixel; `path` is absolute."""

    path: Path
    window: Window


@dataclass(frozen=True, slots=True)
class Bands:
    """What a mosaic says of its bands: a description each, and the legend or scale and the nodata that all share."""

    descriptions: tuple[str, ...]
    legend: Legend | None = None
    scale: float | None = None
    nodata: int = NODATA


def write_mosaic(
    staging: Staging, layer: str, bands: Bands, *, georef: Georef, tags: Mapping[str, str], folder: Path
) -> Path:
    """Write the VRTs of one layer into `folder` and return the one to open. Blocks without pixels are nodata."""
    layout, plain = staging.layout, Bands(("",) * len(bands.descriptions), nodata=bands.nodata)
    rows: dict[int, dict[Block, Path]] = {}
    for block, path in staging.files(layer, folder / "blocks").items():
        rows.setdefault(block[0], {})[block] = path
    strips = []
    for row, files in rows.items():
        first = layout.window((row, 0))
        strip = Window(first.row, 0, first.height, layout.shape[1])
        sources = [Source(path.absolute(), layout.window(block).relative_to(strip)) for block, path in files.items()]
        path = (folder / f"{layer}-{row}.vrt").absolute()
        path.write_text(mosaic_xml(strip.shape, plain, sources), encoding="utf-8")
        strips.append(Source(path, strip))
    mosaic = folder / f"{layer}.vrt"
    mosaic.write_text(mosaic_xml(layout.shape, bands, strips, georef=georef, tags=tags), encoding="utf-8")
    return mosaic


def mosaic_xml(
    shape: tuple[int, int],
    bands: Bands,
    sources: Iterable[Source],
    *,
    georef: Georef | None = None,
    tags: Mapping[str, str] | None = None,
) -> str:
    """The text of one VRT of uint8 bands."""
    sources = tuple(sources)
    parts = [f'<VRTDataset rasterXSize="{shape[1]}" rasterYSize="{shape[0]}">']
    parts += georeference_xml(georef) if georef else ()
    parts += ["<Metadata>", *_tags_xml(tags or {}), "</Metadata>"]
    for band, description in enumerate(bands.descriptions, start=1):
        parts.append(f'<VRTRasterBand dataType="Byte" band="{band}" blockXSize="{TILE}" blockYSize="{TILE}">')
        parts += _band_xml(description, bands, band)
        parts += [_source_xml(source, band) for source in sources]
        parts.append("</VRTRasterBand>")
    return "\n".join([*parts, "</VRTDataset>", ""])


def georeference_xml(georef: Georef) -> Iterator[str]:
    """CRS and transform as elements of a VRT, bit for bit."""
    if georef.crs is not None:
        wkt = escape(georef.crs.to_wkt(version="WKT2_2019"))
        yield f"<SRS>{wkt}</SRS>"
    if georef.has_transform:
        # repr() of a float is the shortest text that reads back as the same bits.
        yield f"<GeoTransform>{', '.join(repr(float(value)) for value in georef.transform.to_gdal())}</GeoTransform>"


def _tags_xml(tags: Mapping[str, str]) -> Iterator[str]:
    for key, value in sorted(tags.items()):
        yield f"<MDI key={quoteattr(key)}>{escape(value)}</MDI>"


def _band_xml(description: str, bands: Bands, band: int) -> Iterator[str]:
    if description:
        yield f"<Description>{escape(description)}</Description>"
    yield f"<NoDataValue>{bands.nodata}</NoDataValue>"
    if bands.scale is not None:
        yield f"<Offset>0</Offset><Scale>{bands.scale!r}</Scale>"
    if bands.legend is None:
        yield f"<ColorInterp>{'Gray' if band == 1 else 'Undefined'}</ColorInterp>"
    else:
        yield from _legend_xml(bands.legend)


def _legend_xml(legend: Legend) -> Iterator[str]:
    """Colour table and category names from id 0 to the largest; ids that are no class are black and unnamed."""
    colors = legend.colormap()
    names = {entry.id: entry.name for entry in legend.classes}
    ids = range(max(legend.ids) + 1)
    yield "<ColorInterp>Palette</ColorInterp><ColorTable>"
    for i in ids:
        red, green, blue, alpha = colors.get(i, (0, 0, 0, 255))
        yield f'<Entry c1="{red}" c2="{green}" c3="{blue}" c4="{alpha}"/>'
    yield "</ColorTable><CategoryNames>"
    yield from (f"<Category>{escape(names.get(i, ''))}</Category>" for i in ids)
    yield "</CategoryNames>"


def _source_xml(source: Source, band: int) -> str:
    window = source.window
    size = f'xSize="{window.width}" ySize="{window.height}"'
    return (
        f'<SimpleSource><SourceFilename relativeToVRT="0">{escape(str(source.path))}</SourceFilename>'
        f"<SourceBand>{band}</SourceBand>"
        f'<SourceProperties RasterXSize="{window.width}" RasterYSize="{window.height}" DataType="Byte" '
        f'BlockXSize="{TILE}" BlockYSize="{TILE}"/>'
        f'<SrcRect xOff="0" yOff="0" {size}/><DstRect xOff="{window.col}" yOff="{window.row}" {size}/></SimpleSource>'
    )
