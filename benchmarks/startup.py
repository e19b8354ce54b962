"""Measure the time of `wasnow --help` from the shell. Target: under 0.5 s.

    python benchmarks/startup.py [RUNS]

Prints the median and the best of RUNS (7) runs, after one that fills the caches.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import sysconfig
import time
from pathlib import Path


def seconds(command: list[str]) -> float:
    """Wall time of one run of a command.

    Raises:
        subprocess.CalledProcessError: the command fails.
    """
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    script = Path(sysconfig.get_path("scripts")) / "wasnow"
    if not script.exists():
        sys.exit(f"{script} not found. Install wasnow into this environment (make env)")
    command = [str(script), "--help"]
    seconds(command)
    took = [seconds(command) for _ in range(runs)]
    print(f"wasnow --help: median {statistics.median(took):.3f} s, best {min(took):.3f} s of {runs} runs")


if __name__ == "__main__":
    main()
