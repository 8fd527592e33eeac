"""Class maps to polygons: trace each block, join by identity, measure, write."""

from geoseg.vector.export import check_vector_output, write_polygons
from geoseg.vector.vectorize import VectorOptions, VectorSummary, read_polygons, vectorize, vectorize_raster

__all__ = [
    "vectorize",
    "vectorize_raster",
    "VectorOptions",
    "VectorSummary",
    "read_polygons",
    "write_polygons",
    "check_vector_output",
]
