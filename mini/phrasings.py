"""Phrasings of the trained words out of the lists of terms, so that words to come lie near: hundreds for each class.

A term counts where its last noun names the class; terms that say something else as well ("pond plant", "dry lake") do
not. Phrasings that measure whether unseen words work (`wasnow.nn.terms.HELD_OUT_PHRASINGS`) are left out, and so is
every term that contains one.
"""

from __future__ import annotations

from pathlib import Path

from mix import TERM_LISTS
from wasnow.nn.term_phrasings import HELD_OUT_PHRASINGS, PHRASINGS

HEADS = {
    "building": "building house home roof rooftop hall shop store centre hotel school church mosque temple barn villa "
    "hangar warehouse block apartment flat office tower hospital library museum theatre station hut cottage bungalow "
    "garage mall factory chapel cathedral college clinic dwelling residence workshop market stadium greenhouse "
    "skyscraper shack farmhouse townhouse chalet stable",
    "road": "road street highway motorway freeway expressway avenue boulevard lane alley driveway roundabout "
    "intersection junction crossroads asphalt tarmac parkway bypass crescent overpass flyover lot pavement sidewalk "
    "carriageway park",
    "water": "water lake pond river pool sea ocean canal stream reservoir bay lagoon creek basin waterway brook fjord "
    "estuary loch mere tributary watercourse rivulet cove inlet",
    "vegetation": "tree trees forest wood grove shrub shrubs bush bushes scrub grass lawn meadow grassland pasture "
    "hedge orchard plantation jungle rainforest undergrowth crop crops field vineyard turf vegetation plants palm "
    "palms canopy hedgerow",
    "bare ground": "soil earth sand gravel dirt ground land desert dune rock clay surface yard lot plain mud dust",
}
_ELSE = """
dry dried empty covered green plant plants under bed bank mouth delta low falling high bare lake gravel grass grassy
vegetated solar flooded damaged collapsed missing burnt charred burnt-out ruined dead felled fallen rooftop stall street
sign lamp light lorry truck coach ploughed bus
"""
BUT = frozenset(_ELSE.split())
"""A term with one of these before its last word may name something else."""

LISTS = Path(__file__).with_name("terms")


def phrasings(lists: Path = LISTS) -> dict[str, tuple[str, ...]]:
    """For each word of training its phrasings, those of `PHRASINGS` first."""
    held_out = {phrase for some in HELD_OUT_PHRASINGS.values() for phrase in some}
    found = {}
    for word, numbers in TERM_LISTS.items():
        heads = set(HEADS[word].split())
        own = set(word.split()) | heads
        terms = list(PHRASINGS[word])
        for number in numbers:
            for path in sorted(lists.glob(f"{number}_*.txt")):
                for term in path.read_text(encoding="utf-8").splitlines():
                    parts = term.lower().split()
                    if not parts or term.startswith("#") or parts[-1] not in heads:
                        continue
                    if any(part in BUT and part not in own for part in parts[:-1]):
                        continue
                    terms.append(term)
        known = dict.fromkeys(terms)
        found[word] = tuple(term for term in known if term not in held_out)
    return found
