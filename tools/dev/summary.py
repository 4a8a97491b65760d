"""Prints the closing line of a CTest JUnit file: N passed, N failed, N skipped."""

import sys
import xml.etree.ElementTree as ElementTree


def main() -> int:
    suite = ElementTree.parse(sys.argv[1]).getroot()
    total, failed = int(suite.get("tests", 0)), int(suite.get("failures", 0))
    skipped = int(suite.get("skipped", 0)) + int(suite.get("disabled", 0))
    for case in suite.iter("testcase"):
        if case.find("skipped") is not None:
            print(f"skipped: {case.get('name')}")
    print(f"{total - failed - skipped} passed, {failed} failed, {skipped} skipped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
