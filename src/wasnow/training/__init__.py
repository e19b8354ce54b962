"""From samples to a checkpoint: what a run is (config, recipes), what it sees (feed), how it learns (optim, loop), and
what it leaves behind (state, log, page)."""
