"""The five kinds of ground that an invented place is made of, and their codes in the truth.

What counts as what:

    building      roofs, and the slab of a building under way
    road          everything paved: roads, pavements, drives, car parks, yards, terraces
    water         river, ponds, pools
    vegetation    crops in every season, grass, hedges, crowns (also where they hang over a road)
    bare ground   building sites, felled woods, gravel, unpaved tracks, vegetable beds, dry river beds

A ploughed field would be a change of cover, so seasons only recolour: green wheat ripens and becomes stubble, and stays
vegetation. A shadow takes the class of what it falls on.
"""

from __future__ import annotations

CLASSES: tuple[str, ...] = ("building", "road", "water", "vegetation", "bare ground")
"""The class of code ``k`` in the truth is ``CLASSES[k - 1]``."""

BUILDING, ROAD, WATER, VEGETATION, BARE = 1, 2, 3, 4, 5
"""Class codes of the truth rasters."""
