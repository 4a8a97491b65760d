"""Prints every row of SYSTEMS.md with the tests that cite it and what came of them in the last tools/test.

usage: rows.py [--rows FILE] [--results FOLDER] [--only REGEX] [--missing]
Without the file of rows, the ids that tests cite are listed instead.
"""

import argparse
import re
import signal
import sys
from pathlib import Path

from results import Result, read_results, rows_of

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\s*[-*|]\s*\*{0,2}([A-Z]\d{1,3})\*{0,2}[\s|]+(.*)")
TEST_NAME = re.compile(
    r"\b(?:TEST|TEST_F|TEST_P|RC_GTEST_PROP|RC_GTEST_FIXTURE_PROP)\(\s*(\w+)\s*,\s*(\w+)|^def (test_\w+)", re.M
)


def read_rows(path: Path) -> dict[str, str]:
    """Row id -> what it asks, shortened."""
    rows = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        match = ROW.match(line)
        if match:
            rows.setdefault(match.group(1), re.split(r" -> | \| ", match.group(2))[0][:60])
    return rows


def tests_in_source(root: Path) -> list[str]:
    """Names of the tests that the source holds, run or not."""
    names = []
    for path in sorted((root / "tests").rglob("*")):
        if path.suffix in (".cpp", ".py"):
            for suite, name, function in TEST_NAME.findall(path.read_text(encoding="utf-8")):
                names.append(function or f"{suite}.{name}")
    return names


def by_row(root: Path, results: list[Result]) -> dict[str, list[Result]]:
    """Row id -> its tests; what did not run in the last run is "not run"."""
    table: dict[str, list[Result]] = {}
    ran = {re.split(r"[\[/]", result.name)[0] for result in results}
    missing = [Result(name, "not run") for name in tests_in_source(root) if name not in ran and rows_of(name)]
    for result in results + missing:
        for row in result.rows:
            table.setdefault(row, []).append(result)
    return table


def verdict(tests: list[Result]) -> str:
    outcomes = {test.outcome for test in tests}
    for worst in ("failed", "not run", "skipped"):
        if worst in outcomes:
            return worst
    return "passed" if tests else "no test"


def order(row: str) -> tuple[str, int]:
    return row[0], int(row[1:])


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tools/dev/rows", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=Path, default=ROOT / "../shared/SYSTEMS.md", help="the file that holds the rows")
    parser.add_argument("--results", type=Path, default=ROOT / "build/release/results", help="what tools/test kept")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    parser.add_argument("--only", default="", help="rows whose id matches this expression")
    parser.add_argument("--missing", action="store_true", help="only rows that no passing test proves")
    options = parser.parse_args(arguments)
    table = by_row(options.root, read_results(options.results))
    rows = read_rows(options.rows) if options.rows.is_file() else {}
    if not rows:
        print(f"{options.rows} is not here: only rows that tests cite", file=sys.stderr)
    proven = 0
    chosen = [row for row in sorted(set(rows) | set(table), key=order) if re.search(options.only, row)]
    for row in chosen:
        tests = table.get(row, [])
        result = verdict(tests)
        proven += result == "passed"
        if options.missing and result == "passed":
            continue
        print(f"{row:5} {result:8} {rows.get(row, '')}")
        for test in tests:
            print(f"      {test.outcome:8} {test.name}")
    known = f"{proven} of {len(chosen)}" if rows else f"{proven} cited"
    print(f"{known} rows proven")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader that has seen enough (head) is no error
    sys.exit(main(sys.argv[1:]))
