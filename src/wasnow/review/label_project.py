"""A sample folder opened for labelling: images, points, labels. It never reads strata.csv, so labelling is blind."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw

from wasnow.areas.design import POINTS, UNCHANGED, Design
from wasnow.areas.labels import Label, add_label, latest, read_labels
from wasnow.errors import InputError, WasnowError
from wasnow.output.record import GridRecord, RunRecord
from wasnow.review.plane import Plane
from wasnow.review.project import found_again, grid_of
from wasnow.review.tiles import ImageTiles

OTHER = "other"
CONFIDENCES = ("high", "medium", "low")
SKIPS = ("cloud or shadow", "no imagery", "mixed pixel", "cannot tell", "other")


class LabelProject:
    """Everything that the labelling page needs of one sample folder.

    Attributes:
        design: of the sample.
        plane: the grid of the map in the page.
        images: tiles of both dates; None for an image that cannot be shown.
        problems: why an image cannot be shown, by date.
        points: ``{id: (row, col)}`` in the order of labelling.

    Args:
        folder: the sample folder.
        before: where the image of the first date is now; None takes the path recorded by the map.
        after: the same for the second date.
        classes: further classes that may be labelled.

    Raises:
        InputError: the folder is not a sample.
    """

    def __init__(
        self, folder: Path, *, before: Path | None = None, after: Path | None = None, classes: tuple[str, ...] = ()
    ) -> None:
        self.folder = folder
        self.design = Design.read(folder)
        record = GridRecord(
            crs=self.design.crs,
            transform=self.design.transform,
            width=self.design.width,
            height=self.design.height,
            gsd_m=None,
        )
        self.grid = grid_of(record)
        self.plane = Plane(self.grid.height, self.grid.width)
        self.points = _points(folder)
        self.classes = tuple(dict.fromkeys((*self.design.classes, *classes, OTHER)))
        self.images: dict[str, ImageTiles | None] = {}
        self.problems: dict[str, str] = {}
        run = self._run()
        for date, given in (("before", before), ("after", after)):
            self.images[date] = self._image(date, given, run)
        self.labels: dict[int, Label] = latest(read_labels(folder / "labels.csv"))

    def close(self) -> None:
        """Close the images."""
        for image in self.images.values():
            if image is not None:
                image.close()

    def facts(self) -> dict[str, Any]:
        """Return what the page shows before any point."""
        corners = self.plane.lnglat(np.array([[0.0, self.grid.height], [self.grid.width, 0.0]]))
        return {
            "title": self.folder.resolve().name,
            "dates": list(self.design.dates),
            "classes": list(self.classes),
            "confidences": list(CONFIDENCES),
            "skips": list(SKIPS),
            "bounds": corners.tolist(),
            "zoom": self.plane.deepest,
            "images": {date: image is not None for date, image in self.images.items()},
            "problems": self.problems,
            "ids": list(self.points),
            "done": [each for each in self.points if each in self.labels],
        }

    def point(self, number: int) -> dict[str, Any]:
        """Return where a point is, and its label so far.

        Args:
            number: id of the point.

        Raises:
            InputError: the sample has no such point.
        """
        if number not in self.points:
            raise InputError(f"point {number} is not part of this sample")
        row, col = self.points[number]
        pixel = self.plane.lnglat(np.array([[col, row + 1.0], [col + 1.0, row]], np.float64))
        label = self.labels.get(number)
        return {"id": number, "pixel": pixel.tolist(), "label": None if label is None else asdict(label)}

    def save(self, label: Label) -> None:
        """Save one label durably.

        Args:
            label: its classes must be classes of the design, or both empty with a reason.

        Raises:
            InputError: the point or a class is unknown, or a class is missing without a reason.
            DiskFull, OutputError: it cannot be written.
        """
        if label.id not in self.points:
            raise InputError(f"point {label.id} is not part of this sample")
        for word in (label.before, label.after):
            if word and word not in (*self.classes, UNCHANGED):
                raise InputError(f"class {word!r} is unknown; the classes are {', '.join(self.classes)}")
        if not label.usable and not label.skip_reason:
            raise InputError("give a class at both dates, or skip the point with a reason")
        stamped = Label(**{**asdict(label), "labelled_at": datetime.now(UTC).isoformat(timespec="seconds")})
        add_label(self.folder, stamped)
        self.labels[label.id] = stamped

    def _run(self) -> RunRecord | None:
        for place in (Path(self.design.map), self.folder.parent / Path(self.design.map).name):
            try:
                return RunRecord.read(place)
            except InputError:
                continue
        return None

    def _image(self, date: str, given: Path | None, run: RunRecord | None) -> ImageTiles | None:
        if run is None and given is None:
            self.problems[date] = f"the map {self.design.map} was not found; give the image with --{date}"
            return None
        image = None if run is None else (run.before if date == "before" else run.after)
        path = str(given) if given is not None or image is None else found_again(image.path, Path(self.design.map))
        try:
            bands = (1, 2, 3) if image is None else image.bands
            stretch = None if image is None else image.stretch
            return ImageTiles(path, self.grid, bands=bands[:3] if len(bands) >= 3 else bands[:1], stretch=stretch)
        except WasnowError as error:
            self.problems[date] = str(error)
            return None


def _points(folder: Path) -> dict[int, tuple[int, int]]:
    path = folder / POINTS
    try:
        info, _, _, values = pyogrio.raw.read(path, columns=["id", "row", "col"], read_geometry=False)
    except (pyogrio.errors.DataSourceError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())}); restore the file") from None
    table = dict(zip((str(name) for name in info["fields"]), values, strict=True))
    rows = zip(table["id"].tolist(), table["row"].tolist(), table["col"].tolist(), strict=True)
    return {int(number): (int(row), int(col)) for number, row, col in rows}
