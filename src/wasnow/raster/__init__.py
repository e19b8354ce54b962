"""Rasters on the ground: grids, alignment and tiles as pure geometry; reading and writing through rasterio."""
