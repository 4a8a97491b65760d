"""tools/dev/rows matches tests with rows; the closing line of tools/test counts them."""

import pytest

import rows
import summary
from results import Result, read_junit, rows_of

CTEST = """<testsuite name="x" tests="4" failures="1" disabled="0" skipped="1">
<testcase name="CapacitySlots.DropHalf_A8" status="run"/>
<testcase name="Load.KeepsTokens_A8_B8" status="fail"><failure message=""/></testcase>
<testcase name="Gpu.Copies_C9" status="notrun"><skipped message="SKIP_REGULAR_EXPRESSION"/></testcase>
<testcase name="Json.Reads" status="run"/>
</testsuite>"""
PYTEST = """<testsuites><testsuite name="pytest"><testcase classname="a" name="test_slots_A8[0.5-4]"/>
<testcase classname="a" name="test_other"><error message=""/></testcase></testsuite></testsuites>"""


@pytest.fixture(name="project")
def make_project(tmp_path):
    """A root with results, one test that did not run, and four rows."""
    results = tmp_path / "build/release/results"
    results.mkdir(parents=True)
    (results / "ctest.xml").write_text(CTEST, encoding="utf-8")
    (results / "pytest.xml").write_text(PYTEST, encoding="utf-8")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/a_test.cpp").write_text("TEST(Newer,\n     Test_B8) {}\nTEST(CapacitySlots, DropHalf_A8) {}\n")
    (tmp_path / "SYSTEMS.md").write_text("- **A8** Capacity -> C: x\n- **B8** Drop\n- **C9** Gpu\n- **Z10** None\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Capacity.DropHalf_A8", ["A8"]),
        ("Capacity.Slots_A8_B12", ["A8", "B12"]),
        ("test_slots_A8[0.5-4]", ["A8"]),
        ("Grid/Capacity.Slots_B3/2", ["B3"]),
        ("Capacity.HoldsForA8Too", []),
        ("Capacity.Slots_A8Again", []),
        ("Json.Reads", []),
    ],
)
def test_the_suffix_of_a_name_cites_rows(name, expected):
    assert rows_of(name) == expected


def test_both_kinds_of_junit_are_read(project):
    folder = project / "build/release/results"
    assert [r.outcome for r in read_junit(folder / "ctest.xml")] == ["passed", "failed", "skipped", "passed"]
    pytest_results = [Result("test_slots_A8[0.5-4]", "passed"), Result("test_other", "failed")]
    assert read_junit(folder / "pytest.xml") == pytest_results


def run_rows(project, capsys, *more):
    arguments = ["--rows", str(project / "SYSTEMS.md"), "--root", str(project)]
    rows.main([*arguments, "--results", str(project / "build/release/results"), *more])
    return capsys.readouterr().out


def test_every_row_is_shown_with_its_tests(project, capsys):
    said = run_rows(project, capsys)
    assert "A8    failed   Capacity" in said
    assert "      passed   CapacitySlots.DropHalf_A8" in said
    assert "      not run  Newer.Test_B8" in said
    assert "C9    skipped  Gpu" in said
    assert "Z10   no test  None" in said
    assert "0 of 4 rows proven" in said


def test_a_row_is_proven_when_all_its_tests_passed(project, capsys):
    (project / "build/release/results/ctest.xml").write_text(CTEST.replace("_A8_B8", "_B8"), encoding="utf-8")
    assert "1 of 4 rows proven" in run_rows(project, capsys)
    assert "A8 " not in run_rows(project, capsys, "--missing")


def test_without_the_file_the_cited_rows_are_listed(project, capsys):
    (project / "SYSTEMS.md").unlink()
    said = run_rows(project, capsys)
    assert "A8 " in said and "Z10" not in said


def test_the_closing_line_counts_everything(project, capsys):
    assert summary.main(str(project / "build/release/results")) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "3 passed, 2 failed, 1 skipped"
    assert "failed: test_other" in said


def test_no_results_is_no_success(tmp_path, capsys):
    assert summary.main(str(tmp_path)) == 1
    assert capsys.readouterr().out == "0 passed, 0 failed, 0 skipped\n"
