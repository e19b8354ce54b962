"""Prior masks: where the objects that class words name are at each date, found before the dates are compared.

words + image ── Masker (Grounding DINO + SAM, SAM 3, CLIPSeg) ── PriorCache ── tiles ───┐
words + footprints, masks, PNGs ── files ────────────────────────────────────────────────┴─> prior folder
                                                                       open_priors(folder) <── detection, training

regions        what a masker finds; geometry of boxes and masks
prepare        images as each network expects them
weights        where the networks' weights are
grounded_sam, sam3, clipseg    the networks; single_network holds what the last two share
files          existing masks
cache          cached answers
tiles          rasters larger than a network's input; merges objects across tile borders
maskers        a masker by its name, weights and thresholds
rgb_raster     a raster as 8-bit RGB, window by window
make           a pair or a dataset -> a prior folder
manifest       priors.json
store          read a prior folder
samples        the pairs of a dataset with their masks, for training and evaluation
"""

from __future__ import annotations

from wasnow.priors.store import Priors, open_priors

__all__ = ["Priors", "open_priors"]
