"""Blocks that several models share unchanged, and networks of others that models are built from."""
