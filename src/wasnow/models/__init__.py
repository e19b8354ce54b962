"""Models: the contract that all of them meet, one file per method, checkpoints and published weights."""
