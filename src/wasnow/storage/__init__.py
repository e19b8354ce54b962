"""Files on disk, for every other package: atomic writes, digests, locks, the journal of a run, cache folders."""
