"""Building blocks that several models share, and networks of others that models are built from."""
