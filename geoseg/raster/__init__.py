"""geoseg.raster."""
