"""Files of a run on disk: atomic writes, checksums, locks, journal, caches."""
