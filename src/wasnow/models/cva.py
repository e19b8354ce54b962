"""CVA: change vector analysis, after the dates are brought to one radiometry over the pixels that did not change.

Malila, "Change vector analysis", LARS 1980; the normalisation after Canty and Nielsen, "Automatic radiometric
normalization of multitemporal satellite imagery with the iteratively re-weighted MAD transformation", Remote Sensing of
Environment 112(3), 2008: orthogonal regression per band, weighted by IR-MAD's chance of no change.

          after │        · changed          For each band, D is the distance to the line of no change, in units of
                │     d /   ___/            the noise that the unchanged pixels have about it. Z = |D|², and the
                │      / __/·  ·            angle of the vector D would tell the kind of change.
                │    ·_/ · no change
                └──────────────── before    No date is the reference: swapping them changes nothing.

The line is the main axis of the weighted covariance of the band's two dates, d lies along the minor axis; this is the
total least squares line in the form that needs no slope, and so no exception for a steep one.

Noise is often shared between bands (haze, shadow), and then Z is no chi-square variable of as many degrees of freedom
as there are bands. Its first two moments still are those of a scaled one (Satterthwaite 1946, Box 1954): with λ the
eigenvalues of the correlation matrix of the no-change residuals,

    Z / g ~ chi²(ν),   g = Σλ² / Σλ,   ν = (Σλ)² / Σλ²,

which is g = 1 and ν = bands where the noise is independent. Z is divided by g; its reading as a logit is IR-MAD's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wasnow.errors import BandsUnclear
from wasnow.models.chance import Probability, Reading, SurvivalTable, consistency
from wasnow.models.contract import ModelCard, PixelStream, require_no_classes
from wasnow.models.irmad import (
    FLAT,
    IRMAD,
    NOISE_FLOOR,
    Difference,
    FittedDifference,
    Reweighted,
    check_reading,
    describe,
    fitted_card,
    gather,
    read_scene,
)
from wasnow.models.moments import Floats


@dataclass(frozen=True, slots=True)
class Normalisation:
    """The line of no change of every band, and the noise about it.

    Attributes:
        difference: D of each band that varies, and Z = |D|² already divided by g.
        gain: ``(C,)`` slope of after over before; None for a band that does not vary.
        noise: ``(C,)`` standard deviation of the distance to the line, in the units of the file; None likewise.
        dof: ν, 0 where no band varies.
    """

    difference: Difference
    gain: tuple[float | None, ...]
    noise: tuple[float | None, ...]
    dof: float


def normalise(mean: Floats, covariance: Floats, *, trimmed: float = 1.0) -> Normalisation:
    """Fit the lines of no change to weighted moments.

    Args:
        mean: ``(2 C,)``, the bands of the first date and then those of the second.
        covariance: ``(2 C, 2 C)`` likewise.
        trimmed: the share of the noise variance that the weights left (`chance.consistency`).
    """
    bands = len(mean) // 2
    before_axes, after_axes = np.zeros((bands, bands)), np.zeros((bands, bands))
    gain: list[float | None] = [None] * bands
    noise: list[float | None] = [None] * bands
    for band in range(bands):
        pair = [band, bands + band]
        own = covariance[np.ix_(pair, pair)]
        if not (np.sqrt(np.diag(own)) > FLAT * np.abs(mean[pair])).any():
            continue
        _, axes = np.linalg.eigh(own)
        (run, rise), normal = axes[:, 1], axes[:, 0]
        # What the distance would vary by, were the two dates unrelated: the scale on which rounding is nothing.
        unrelated = float(normal**2 @ np.diag(own))
        deviation = float(np.sqrt(max(normal @ own @ normal / trimmed, NOISE_FLOOR * unrelated)))
        before_axes[band, band], after_axes[band, band] = normal[0] / deviation, -normal[1] / deviation
        gain[band] = float(rise / run) if abs(run) > 1e-12 else None
        noise[band] = deviation
    varies = [band for band in range(bands) if noise[band] is not None]
    before_axes, after_axes = before_axes[:, varies], after_axes[:, varies]
    joint = np.concatenate([before_axes, -after_axes])
    residual = joint.T @ covariance @ joint
    # In units of the noise: a residual far below it is rounding, and its correlations with other bands mean nothing.
    deviations = np.sqrt(np.maximum(np.diag(residual), 1e-2))
    correlation = residual / np.outer(deviations, deviations)
    np.fill_diagonal(correlation, 1.0)
    squares = float((correlation**2).sum())  # Σλ², and Σλ is the number of bands
    scale = np.sqrt(squares / len(varies)) if varies else 1.0
    difference = Difference.around(mean[:bands], mean[bands:], before_axes / scale, after_axes / scale)
    return Normalisation(difference, tuple(gain), tuple(noise), len(varies) ** 2 / squares if varies else 0.0)


@dataclass(frozen=True, kw_only=True)
class CVA:
    """Change vector analysis of two dates with the same bands: a `SceneModel`.

    It sees change along directions in which the scene varies anyway, which IR-MAD explains away, and is lost where the
    dates differ most by what all bands share. On the Landsat pair of Taizhou (6 bands) the default reading reaches F1
    0.955 with 0.2 % false alarms (IR-MAD: 0.952 with 1.1 %); on a colour pair of a construction site, where sun and
    season move brightness by as much as buildings do, no threshold gets beyond F1 0.31 (IR-MAD: 0.67). For red, green
    and blue alone, prefer IR-MAD.

    Args:
        probability: see `IRMAD`.
        false_alarm: see `IRMAD`.
        no_change: the IR-MAD that finds the pixels to normalise over.

    Raises:
        UsageError: an option is out of its range.
    """

    probability: Probability = "mixture"
    false_alarm: float = 1e-4
    no_change: IRMAD = field(default_factory=IRMAD)

    def __post_init__(self) -> None:
        check_reading(self.probability, self.false_alarm)

    @property
    def card(self) -> ModelCard:
        """A per-pixel method on the numbers of the file."""
        return ModelCard(
            name="cva",
            summary="change in the same bands at both dates by change vectors, fitted to the scene; no training",
            source="Canty and Nielsen 2008, Remote Sensing of Environment 112(3), doi:10.1016/j.rse.2007.07.013",
            bands="all",
            scaling="native",
            threshold=Reading(1.0, self.probability, self.false_alarm, None).threshold,
            margin=0,
        )

    def bind(self, classes: Sequence[str]) -> CVA:
        """Itself, for no words.

        Raises:
            VocabularyError: any word is asked for.
        """
        require_no_classes(self.card, classes)
        return self

    def fit(self, pixels: PixelStream) -> FittedDifference:
        """Learn from the scene in the passes of IR-MAD, one for the lines of no change and one for the histogram of Z.

        Raises:
            BandsUnclear: the dates have different numbers of bands.
            InputError: as `IRMAD.fit`.
        """
        self._check_bands(pixels)
        found = self.no_change.reweight(pixels)
        lines = self._lines(pixels, found)
        reading, measured = read_scene(pixels, lines.difference, lines.dof, self.probability, self.false_alarm)
        described = {"no_change": describe(found), "gain": list(lines.gain), "noise": list(lines.noise)}
        return FittedDifference(
            fitted_card(self.card, reading),
            lines.difference,
            reading,
            {**described, "pixels": found.moments.count, "dof": lines.dof, **measured},
        )

    def restore(self, state: dict[str, Any]) -> FittedDifference:
        """The fitted model that `FittedDifference.state` described.

        Raises:
            InputError: the state is of another model, or not a state at all.
        """
        return FittedDifference.from_state(self.card, state)

    @staticmethod
    def _check_bands(pixels: PixelStream) -> None:
        for before, after in pixels():
            if before.shape[1] != after.shape[1]:
                raise BandsUnclear(
                    f"before has {before.shape[1]} bands and after {after.shape[1]}, and change vectors need the same "
                    "bands at both dates; name them for each date, or use the model irmad"
                )
            return

    def _lines(self, pixels: PixelStream, found: Reweighted) -> Normalisation:
        """The lines over the final weights: `found.moments` still has those of one analysis earlier."""
        dof = len(found.canonical.correlations)
        if dof == 0:
            return normalise(found.moments.mean, found.moments.covariance)
        moments, _ = gather(pixels, found.canonical.difference, SurvivalTable(dof))
        return normalise(moments.mean, moments.covariance, trimmed=consistency(dof))
