"""Load batches with two processes; ``test_shared_memory`` runs this with a /dev/shm of 1 MB.

Prints the SHA-256 of all batches. ``--no-check`` skips the check of the free space, as if it were used up later.
"""

import hashlib
import sys

from training.tiny import Blobs
from wasnow.training import loader


def main() -> None:
    if "--no-check" in sys.argv:
        loader.free_shared_memory = lambda: None
    batches = loader.BatchLoader(
        Blobs(4, height=256, width=256),
        lambda sample, rng: sample,
        seed=0,
        batch_size=4,
        workers=0 if "--no-workers" in sys.argv else 2,
        warn=lambda text: print(text, file=sys.stderr),
    )
    digest = hashlib.sha256()
    for (batch,) in batches.batches(0, 6):
        target = batch.target
        for tensor in (batch.before, batch.after, target.change, target.valid, target.before, target.after):
            digest.update(tensor.numpy().tobytes())
    print(digest.hexdigest())


if __name__ == "__main__":
    main()
