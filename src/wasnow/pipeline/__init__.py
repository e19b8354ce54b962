"""A run from two rasters to a result folder: plan, survey, blocks, execution backends."""
