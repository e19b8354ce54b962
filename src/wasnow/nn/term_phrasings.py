"""Phrasings of the default class words: the words that the shipped model was trained with, and held-out ones."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

PHRASINGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "building": (
            "building", "house", "rooftop", "roof", "warehouse", "residential building", "apartment block",
            "apartment building", "block of flats", "office building", "commercial building", "industrial building",
            "factory", "school building", "hospital", "shopping mall", "hotel", "skyscraper", "garage", "hangar",
            "church", "mosque", "temple", "farmhouse", "barn", "bungalow", "hut", "cottage", "terraced house",
            "detached house", "row house", "public building", "built structure", "dwelling", "home", "shop",
            "housing", "residential house", "flat roof", "tiled roof", "metal roof", "storage building",
            "brick building", "concrete building", "tall building", "small house",
        ),
        "road": (
            "road", "street", "highway", "motorway", "asphalt", "paved road", "asphalt road", "car park",
            "parking lot", "lane", "avenue", "roundabout", "road intersection", "driveway", "tarmac",
            "paved surface", "freeway", "expressway", "dual carriageway", "main road", "side street",
            "residential street", "alley", "slip road", "road junction", "crossroads", "overpass", "flyover",
            "boulevard", "access road", "service road", "country road", "ring road", "concrete road",
            "parking area", "city street", "two-lane road", "traffic lane", "road surface", "pavement",
        ),
        "water": (
            "water", "lake", "river", "pond", "swimming pool", "sea", "ocean", "reservoir", "canal", "stream",
            "lagoon", "bay", "water body", "open water", "creek", "harbour basin", "estuary", "coastal water",
            "fish pond", "water surface", "shallow water", "deep water", "pool", "dam reservoir", "flood water",
            "river channel", "artificial lake", "inland water", "waterway", "fjord", "marina basin", "brook",
            "flooded area", "standing water", "muddy water", "drainage canal", "seawater", "retention pond",
        ),
        "vegetation": (
            "vegetation", "tree", "forest", "grass", "crop field", "lawn", "shrub", "bush", "woodland", "meadow",
            "grassland", "orchard", "low vegetation", "garden", "park", "crops", "palm tree", "pasture", "hedge",
            "cropland", "farmland", "plantation", "vineyard", "tree canopy", "deciduous forest",
            "coniferous forest", "mangrove", "shrubland", "green space", "row of trees", "street tree", "scrub",
            "green field", "golf course grass", "wheat field", "palm grove", "plants", "greenery", "marsh plants",
            "rice field", "turf",
        ),
        "bare ground": (
            "bare ground", "soil", "sand", "desert", "unpaved ground", "bare soil", "bare land", "dirt",
            "bare earth", "sandy ground", "gravel", "sand dune", "barren land", "unpaved area", "exposed soil",
            "vacant lot", "cleared land", "ploughed field", "fallow field", "construction site", "dry soil",
            "beach", "rocky ground", "rock", "earthworks", "quarry", "wasteland", "dusty ground", "excavated earth",
            "dry riverbed", "undeveloped land", "ground", "land", "sandy desert", "dirt track", "mudflat",
            "open ground", "levelled ground", "sandbank",
        ),
    }
)  # fmt: skip
"""Default class word -> synonyms and subclasses. The shipped model was trained on these."""

HELD_OUT_PHRASINGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "building": (
            "villa", "mansion", "tower block", "depot", "farm building", "supermarket", "cabin", "high-rise", "shed",
            "man-made structure",
        ),
        "road": (
            "roadway", "thoroughfare", "trunk road", "asphalt surface", "carriageway", "highway interchange",
            "paved street", "parking space", "turnpike",
        ),
        "water": (
            "body of water", "water basin", "tidal inlet", "irrigation pond", "river water", "gulf", "surface water",
            "tarn", "water channel", "strait",
        ),
        "vegetation": (
            "woods", "foliage", "thicket", "grassy area", "agricultural field", "shrubbery", "grove", "herbage",
            "tall grass", "undergrowth",
        ),
        "bare ground": (
            "earth", "dirt ground", "unvegetated ground", "sandy soil", "arid land", "dune field", "empty lot",
            "bare field", "stony ground",
        ),
    }
)  # fmt: skip
"""Default class word -> phrasings that were never trained on, to measure generalisation."""
