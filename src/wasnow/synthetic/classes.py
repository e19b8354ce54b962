"""The five land-cover classes of a synthetic scene, and their codes in the reference data.

    building      roofs, and the slab of a building under construction
    road          all paved ground: roads, pavements, drives, car parks, yards, terraces
    water         river, ponds, pools
    vegetation    crops in every season, grass, hedges, crowns (also where they hang over a road)
    bare ground   building sites, felled woods, gravel, unpaved tracks, vegetable beds, dry river beds

A ploughed field would be a change of land cover, so seasons change colours only: green wheat ripens and becomes
stubble, and remains vegetation. A shadow has the class of the ground it falls on.
"""

from __future__ import annotations

CLASSES: tuple[str, ...] = ("building", "road", "water", "vegetation", "bare ground")
"""Class words: code ``k`` in the reference data is ``CLASSES[k - 1]``."""

BUILDING, ROAD, WATER, VEGETATION, BARE = 1, 2, 3, 4, 5
"""Class codes in the reference data."""
