"""Make flow.svg: how two rasters become a result folder, and which modules do what.

    python docs/pictures/make_flow_picture.py

A line that starts with a dot-separated name in MODULES names code; a test looks each of them up.
"""

from __future__ import annotations

from pathlib import Path

from drawing import LINE, MUTED, Box, arrow, drawing, text

HERE = Path(__file__).resolve().parent

INPUT, STEP, STORE, AFTER = "#fdf3e1", "#e6f4f1", "#eef1f4", "#f3eefb"
BEFORE = Box(20, 20, 150, 46, "before.tif", fill=INPUT)
LATER = Box(20, 82, 150, 46, "after.tif", fill=INPUT)
WORDS = Box(20, 144, 150, 46, "class words", fill=INPUT)
PLAN = Box(220, 66, 190, 78, "plan", ("pipeline.plan", "grid, bands, tiles, model"), fill=STEP)
SURVEY = Box(460, 66, 190, 78, "survey", ("raster.survey", "statistics, shift, gaps"), fill=STEP)
READ = Box(60, 262, 170, 78, "read and align", ("raster.pair", "pixels and mask"), fill=STEP)
INFER = Box(270, 262, 170, 78, "inference", ("pipeline.block", "tiles through the model"), fill=STEP)
JOURNAL = Box(480, 262, 170, 78, "journal", ("storage.journal", "codes, confidence"), fill=STORE)
WRITE = Box(60, 408, 170, 78, "write", ("output.writer", "assemble, polygonize"), fill=STEP)
FOLDER = Box(
    270,
    398,
    170,
    98,
    "result folder",
    ("change.tif, confidence.tif", "changes.gpkg, run.json", "report.html, item.json"),
    fill=INPUT,
)
LATER_USE = Box(480, 408, 170, 78, "afterwards", ("output.verify", "GIS, data frames, STAC"), fill=AFTER)
BOXES = (BEFORE, LATER, WORDS, PLAN, SURVEY, READ, INFER, JOURNAL, WRITE, FOLDER, LATER_USE)
MODULES = (
    "pipeline.plan",
    "raster.survey",
    "raster.pair",
    "pipeline.block",
    "storage.journal",
    "output.writer",
    "output.verify",
)
"""Names in the picture, below ``wasnow.``."""


def picture() -> str:
    """The SVG text."""
    frame = (
        f'<rect x="40" y="222" width="630" height="136" rx="8" fill="none" stroke="{LINE}" stroke-dasharray="5 4"/>',
        text(
            355,
            242,
            "for each block; pipeline.backends runs them here, in processes or on dask",
            color=MUTED,
        ),
    )
    arrows = (
        *(
            arrow((box.right, box.middle), (PLAN.x, PLAN.middle + shift))
            for box, shift in ((BEFORE, -14), (LATER, 0), (WORDS, 14))
        ),
        arrow((PLAN.right, PLAN.middle), (SURVEY.x, SURVEY.middle)),
        arrow((SURVEY.center, SURVEY.bottom), (SURVEY.center, 207), (READ.center, 207), (READ.center, READ.y)),
        arrow((READ.right, READ.middle), (INFER.x, INFER.middle)),
        arrow((INFER.right, INFER.middle), (JOURNAL.x, JOURNAL.middle)),
        arrow((JOURNAL.center, JOURNAL.bottom), (JOURNAL.center, 380), (WRITE.center, 380), (WRITE.center, WRITE.y)),
        arrow((WRITE.right, WRITE.middle), (FOLDER.x, FOLDER.middle)),
        arrow((FOLDER.right, FOLDER.middle), (LATER_USE.x, LATER_USE.middle)),
    )
    return drawing(690, 516, "Data flow of wasnow detect", *frame, *arrows, *(box.svg() for box in BOXES))


if __name__ == "__main__":
    (HERE / "flow.svg").write_text(picture(), encoding="utf-8")
