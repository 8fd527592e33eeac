"""Class maps to polygons: trace each block, join by identity, measure, write."""

from geoseg.vector.export import check_vector_output, write_polygons
from geoseg.vector.options import VectorOptions
from geoseg.vector.run import VectorRun, VectorSummary
from geoseg.vector.vectorize import read_polygons, vectorize, vectorize_raster

__all__ = [
    "vectorize",
    "vectorize_raster",
    "VectorOptions",
    "VectorRun",
    "VectorSummary",
    "read_polygons",
    "write_polygons",
    "check_vector_output",
]
