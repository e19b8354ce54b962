"""Areas of land cover and of change with confidence intervals, from a probability sample of labelled points.

    result folder or any class raster -> strata -> design (how many points, where) -> labels -> estimates

A map's own area is biased by the map's errors. The estimate comes from the reference labels; the map only makes it
precise. Equations: Olofsson et al. 2014 and 2020, Stehman 2014, Cochran 1977.

    >>> from wasnow.areas import Strata, estimate
    >>> strata = Strata(("water", "land"), sizes=(2000.0, 98000.0), areas_m2=(2e6, 9.8e7))
    >>> result = estimate(reference=labels, mapped=map_labels, stratum=stratum_of_point, strata=strata)
"""

from wasnow.areas.allocation import Margin, allocate, expected_margins, size_for_area, size_for_overall_accuracy
from wasnow.areas.estimate import AreaEstimates, ClassEstimate, estimate
from wasnow.areas.estimators import Estimate, stratified_mean, stratified_ratio
from wasnow.areas.intervals import Interval, jeffreys, unseen_bound, wald
from wasnow.areas.strata import Strata

__all__ = [
    "AreaEstimates",
    "ClassEstimate",
    "Estimate",
    "Interval",
    "Margin",
    "Strata",
    "allocate",
    "estimate",
    "expected_margins",
    "jeffreys",
    "size_for_area",
    "size_for_overall_accuracy",
    "stratified_mean",
    "stratified_ratio",
    "unseen_bound",
    "wald",
]
