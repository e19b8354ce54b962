"""Where the things that words name are, before anything is compared: masks per word and date.

words + picture ── Masker (Grounding DINO + SAM, SAM 3, CLIPSeg) ── PriorCache ── tiles ─┐
words + footprints, masks, PNGs ── files ────────────────────────────────────────────────┴─> prior folder
                                                                          open_priors(folder) <── engine, training

pieces         what a masker finds; geometry of boxes and masks
prepare        pictures as each network wants them
weights        where the networks' weights are found
grounded_sam, sam3, clipseg    the networks; what the last two share is in single_network
files          masks that somebody has already
cache          kept answers
tiles          rasters larger than a network can see: objects across borders made one
maskers        a masker by its name, weights and thresholds
make           a pair or a dataset -> a prior folder
store          a prior folder, written and read
samples        the pairs of a dataset with their masks: for training and scoring
"""

from __future__ import annotations

from wasnow.priors.store import Priors, open_priors

__all__ = ["Priors", "open_priors"]
