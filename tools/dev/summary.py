"""Prints the closing lines of a run of the tests: what was skipped, what failed, and how many.

usage: summary.py FOLDER    of JUnit files; ends with 1 when a test failed or none ran
"""

import sys
from pathlib import Path

from results import read_results


def main(folder: str) -> int:
    results = read_results(Path(folder))
    for outcome in ("skipped", "failed"):
        for result in results:
            if result.outcome == outcome:
                print(f"{outcome}: {result.name}")
    counts = [f"{sum(r.outcome == outcome for r in results)} {outcome}" for outcome in ("passed", "failed", "skipped")]
    print(", ".join(counts))
    return 1 if not results or any(result.outcome == "failed" for result in results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
