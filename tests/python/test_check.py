"""tools/dev/check finds what it is there to find."""

import subprocess
from pathlib import Path

import pytest

import check
import check_json

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(name="project")
def make_project(tmp_path, monkeypatch):
    """A git repository with one committed, well formatted file."""
    monkeypatch.setattr(check, "ROOT", tmp_path)
    (tmp_path / "tools/dev").mkdir(parents=True)
    for name in ("code_rules.py", "check_json.py"):
        (tmp_path / "tools/dev" / name).write_text((ROOT / "tools/dev" / name).read_text(), encoding="utf-8")
    (tmp_path / ".clang-format").write_text((ROOT / ".clang-format").read_text(), encoding="utf-8")
    (tmp_path / "models").mkdir()
    (tmp_path / "models/good.cpp").write_text("int f() { return 1; }\n", encoding="utf-8")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@t"]
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "begin"]):
        subprocess.run([*git, *command], check=True)
    return tmp_path


def test_nothing_changed_is_nothing_to_check(project, capsys):
    assert check.main(["--no-tidy"]) == 0
    assert "0 files, 0 checks failed" in capsys.readouterr().out


def test_a_well_formatted_file_passes(project, capsys):
    (project / "models/new.cpp").write_text("int g() { return 2; }\n", encoding="utf-8")
    assert check.main(["--no-tidy"]) == 0
    assert "ok      clang-format (1 files)" in capsys.readouterr().out


def test_a_badly_formatted_file_fails(project, capsys):
    (project / "models/new.cpp").write_text("int   g( ){return 2 ;}\n", encoding="utf-8")
    assert check.main(["--no-tidy"]) == 1
    said = capsys.readouterr().out
    assert "FAILED  clang-format" in said
    assert "models/new.cpp:1" in said


def test_only_changed_files_are_looked_at_unless_told(project, capsys):
    (project / "models/bad.cpp").write_text("int   g( ){return 2 ;}\n", encoding="utf-8")
    git = ["git", "-C", str(project), "-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "bad"], check=True)
    assert check.main(["--no-tidy"]) == 0
    assert check.main(["--no-tidy", "--all"]) == 1


def test_a_faulty_script_fails(project, capsys):
    (project / "run").write_text('#!/usr/bin/env bash\ncd $1\n', encoding="utf-8")
    assert check.main(["--no-tidy"]) == 1
    assert "FAILED  shellcheck" in capsys.readouterr().out


def test_an_include_against_the_arrow_fails(project, capsys):
    (project / "sim").mkdir()
    (project / "sim/b.h").write_text("#pragma once\n", encoding="utf-8")
    (project / "models/a.h").write_text('#pragma once\n#include "sim/b.h"\n', encoding="utf-8")
    assert check.main(["--no-tidy"]) == 1
    assert "models/ must not include sim/b.h" in capsys.readouterr().out


def test_a_missing_tool_is_a_failure(monkeypatch):
    code, said = check.run(["clang-format-0-no-such-tool", "x"])
    assert code == 1
    assert "is not installed" in said


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": 1, "a": 2}', 'the key "a" occurs twice'),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": 1', "Expecting"),
    ],
)
def test_json_is_read_strictly(tmp_path, text, problem):
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    assert problem in check_json.check(path, None)[0]


def test_a_schema_error_names_its_place(tmp_path):
    path = tmp_path / "profile.json"
    path.write_text('{"schema_version": 1, "name": "x", "device": "cpu", "quantities": {"q": {"value": 1}}}')
    problems = check_json.check(path, ROOT / "hwprofiles/profile.schema.json")
    assert any(": /quantities/q: 'unit' is a required property" in problem for problem in problems)


def test_shipped_profiles_are_checked_against_their_schema():
    schema = check_json.schema_of(ROOT / "hwprofiles/some-machine/profile.json")
    assert schema == ROOT / "hwprofiles/profile.schema.json"
