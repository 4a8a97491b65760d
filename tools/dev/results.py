"""Reads what a run of the tests left behind: CTest's and pytest's JUnit files.

tools/test keeps them under build/release/results/. summary.py counts them, rows.py matches them with SYSTEMS.md.
"""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

# The suffix of a test that proves rows: DropHalfAtFactorHalf_A8, SlotsRoundUp_A8_B8, test_slots_A8, fuzz.json_C5.
SUFFIX = re.compile(r"((?:_[A-Z]\d{1,3})+)(?:\[.*\]|/.*|<.*)?$")


@dataclass(frozen=True)
class Result:
    """One test and what came of it: passed, failed or skipped."""

    name: str
    outcome: str

    @property
    def rows(self) -> list[str]:
        return rows_of(self.name)


def rows_of(name: str) -> list[str]:
    """Row ids that a test's name cites; parameters of a test ("[...]", "/0") may follow."""
    match = SUFFIX.search(name)
    return match.group(1).strip("_").split("_") if match else []


def outcome_of(case: ElementTree.Element) -> str:
    if case.find("failure") is not None or case.find("error") is not None or case.get("status") == "fail":
        return "failed"
    if case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
        return "skipped"
    return "passed"


def read_junit(path: Path) -> list[Result]:
    """Every test of one file. @raises ParseError when it is cut off."""
    cases = ElementTree.parse(path).getroot().iter("testcase")
    return [Result(case.get("name", "?"), outcome_of(case)) for case in cases]


def read_results(folder: Path) -> list[Result]:
    """Every test of a folder of JUnit files, in the order of their names."""
    results = []
    for path in sorted(folder.glob("*.xml")):
        results += read_junit(path)
    return results
