"""Run every benchmark in this folder, one after the other, with small sizes.

    python benchmarks/all.py

A script that is not listed in `SMALL` runs without arguments. The exit code is 1 if any of them failed.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).parent

SMALL: dict[str, tuple[tuple[str, ...], ...]] = {
    "startup.py": ((),),
    "engine.py": (("overhead", "1024"), ("memory", "1000", "4000")),
    "polygons.py": (("2048",),),
    "scores.py": (("50",),),
    "loading.py": (("16",),),
    "prompter.py": (("2", "--naive", "1"),),
    "semantic_cd.py": (("pair", "--clip", "vit-b-32", "--side", "256", "--repeat", "1"),),
    "training.py": (("--crop", "64", "--steps", "3"),),
    "mini.py": (("network", "start", "--repeat", "1"),),
    "sam_cd.py": (("--encoder", "mit-b0", "--side", "256", "--large", "512", "--repeat", "2"),),
    "executors.py": (("--side", "1536", "irmad"),),
    "networks.py": (("--side", "128", "--repeat", "1"),),
    "priors.py": (("clipseg", "sam2", "--side", "512", "--repeat", "1"),),
    "timing.py": (),  # a helper
    "cases.py": (),  # `make cases`
    "sam_cd_controls.py": (),  # an experiment on imagery that is not part of the project
}
"""The arguments of each run of a script. docs/benchmarks.md names the larger sizes behind its figures."""


def runs() -> list[tuple[str, ...]]:
    """Script and arguments of every run: the listed scripts first, then the others in the folder."""
    others = sorted(path.name for path in HERE.glob("*.py") if path.name not in SMALL and path != HERE / "all.py")
    listed = [(name, *arguments) for name, each in SMALL.items() for arguments in each]
    return listed + [(name,) for name in others]


def main() -> int:
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}"
    )
    failed = []
    for name, *arguments in runs():
        title = " ".join((f"benchmarks/{name}", *arguments))
        print(f"\n== {title}", flush=True)
        start = time.perf_counter()
        done = subprocess.run([sys.executable, str(HERE / name), *arguments], check=False)
        print(f"   ({time.perf_counter() - start:.0f} s)", flush=True)
        if done.returncode:
            failed.append(title)
    for title in failed:
        print(f"failed: {title}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
