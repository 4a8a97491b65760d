"""tools/quickstart does each thing once: build, profile, predict, validate; again it only predicts."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Notes each call; a prediction for this machine works once it was profiled.
MOECAST = """#!/bin/sh
echo "$1" >> calls
case $1 in
  profile) touch profiled ;;
  predict) [ -e profiled ] || exit 3 ;;
  validate) echo "the table"; exit "${VALIDATE_EXIT:-0}" ;;
esac
"""


@pytest.fixture(name="project")
def make_project(tmp_path):
    """The script with a program and a build that only note that they were called."""
    (tmp_path / "tools/dev").mkdir(parents=True)
    shutil.copy(ROOT / "tools/quickstart", tmp_path / "tools/quickstart")
    (tmp_path / "tools/dev/install.sh").write_text("install_packages() { :; }\n")
    for name, text in (("build/release/moecast", MOECAST), ("bin/cmake", '#!/bin/sh\nexit "${CMAKE_EXIT:-0}"\n')):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    return tmp_path


def run(project, *arguments, **environment):
    """(result, what the program was asked to do)"""
    (project / "calls").unlink(missing_ok=True)
    done = subprocess.run(
        [project / "tools/quickstart", *arguments],
        env={**os.environ, "PATH": f"{project / 'bin'}:{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    calls = (project / "calls").read_text().split() if (project / "calls").is_file() else []
    return done, calls


def test_the_first_run_profiles_predicts_and_validates(project):
    done, calls = run(project)
    assert done.returncode == 0, done.stderr
    assert calls == ["--version", "predict", "profile", "predict", "predict", "validate"]
    assert "the table" in done.stdout
    assert done.stdout.index("Three commands worth typing next") > done.stdout.index("the table")


def test_the_second_run_measures_nothing_and_shows_the_same_table(project):
    run(project)
    done, calls = run(project)
    assert "profile" not in calls and "validate" not in calls
    assert "the table" in done.stdout and "kept from" in done.stdout


def test_fresh_measures_again(project):
    run(project)
    _, calls = run(project, "--fresh")
    assert "profile" in calls and "validate" in calls


def test_a_missed_bar_is_an_answer_and_a_failure_is_not(project):
    done, _ = run(project, VALIDATE_EXIT="1")
    assert done.returncode == 0 and "the table" in done.stdout
    done, calls = run(project, "--fresh", VALIDATE_EXIT="4")
    assert done.returncode == 4 and "Three commands" not in done.stdout


def test_a_build_that_fails_ends_it(project):
    done, calls = run(project, CMAKE_EXIT="1")
    assert done.returncode == 1 and calls == []


def test_an_unknown_option_is_refused(project):
    done, calls = run(project, "--frsh")
    assert done.returncode == 2 and calls == []
    assert "--frsh: unknown option" in done.stderr
