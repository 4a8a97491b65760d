"""Format, lint and schema checks.

usage: check.py [--all] [--no-tidy] [FILE...]
Without FILE: what differs from main (committed, staged or not) and what is not tracked. With --all: everything.
Prints "ok NAME (N files)" or what is wrong for each check, ends with 1 if there is any.
"""

import argparse
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sys.executable
CODE = (".cpp", ".hpp", ".c", ".h", ".cu", ".cuh")
OWN_WORDS = "mape"


def git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.split("\n") if done.returncode == 0 else []


def changed_files() -> list[str]:
    base = (git("merge-base", "HEAD", "main") or git("merge-base", "HEAD", "origin/main") or ["HEAD"])[0]
    names = git("diff", "--name-only", base) + git("ls-files", "--others", "--exclude-standard")
    return sorted({name for name in names if name and (ROOT / name).is_file()})


def all_files() -> list[str]:
    names = git("ls-files") + git("ls-files", "--others", "--exclude-standard")
    return sorted({name for name in names if name and (ROOT / name).is_file()})


def is_script(name: str) -> bool:
    if name.endswith(".sh"):
        return True
    if "." in Path(name).name:
        return False
    with (ROOT / name).open("rb") as file:
        return file.read(64).startswith((b"#!/usr/bin/env bash", b"#!/bin/bash", b"#!/bin/sh"))


def run(command: list[str]) -> tuple[int, str]:
    """(exit code, what it said); a tool that is missing is a failure, not a pass."""
    if shutil.which(command[0]) is None:
        return 1, f"{command[0]} is not installed (tools/dev/check installs it)"
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode, done.stdout.strip()


def tidy_database() -> str | None:
    """Folder of a compile_commands.json; configures the dev preset when there is none."""
    if not (ROOT / "build/dev/compile_commands.json").is_file():
        code, said = run(["cmake", "--preset", "dev"])
        if code != 0:
            print(said)
            return None
    return "build/dev"


def check_tidy(files: list[str]) -> tuple[int, str]:
    database = tidy_database()
    if database is None:
        return 1, "the dev preset does not configure"
    # clang 19 rejects what g++'s native means on some CPUs.
    extra = ["-Wno-unknown-warning-option", "-march=x86-64-v3"]
    command = ["clang-tidy-19", "--quiet", "-p", database, *(f"--extra-arg={argument}" for argument in extra)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda name: run([*command, name]), files))
    said = [text for code, text in results if code != 0]
    return (1 if said else 0), "\n".join(said)


def checks(files: list[str], tidy: bool):
    """(name, files, function) of every check that has something to look at."""
    code = [name for name in files if name.endswith(CODE)]
    python = [name for name in files if name.endswith(".py")]
    # Tests hold typos on purpose.
    prose = [n for n in files if n.endswith((*CODE, ".md", ".py")) and not n.startswith("tests/")]
    plan = [
        ("clang-format", code, lambda f: run(["clang-format-19", "--dry-run", "--Werror", *f])),
        ("code rules", code, lambda f: run([PYTHON, "tools/dev/code_rules.py", str(ROOT)])),
        ("shellcheck", [n for n in files if is_script(n)], lambda f: run(["shellcheck", "-x", *f])),
        (
            "json",
            [n for n in files if n.endswith(".json")],
            lambda f: run([PYTHON, "tools/dev/check_json.py", *f]),
        ),
        ("pyflakes", python, lambda f: run(["pyflakes3", *f])),
        ("pycodestyle", python, lambda f: run(["pycodestyle", "--max-line-length=120", "--ignore=E203,W503", *f])),
        ("codespell", prose, lambda f: run(["codespell", "-L", OWN_WORDS, *f])),
    ]
    if tidy:
        plan.append(("clang-tidy", [n for n in code if n.endswith(".cpp") and "tests/fuzz" not in n], check_tidy))
    return [(name, chosen, function) for name, chosen, function in plan if chosen]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tools/dev/check", description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="every file instead of the changed ones")
    parser.add_argument("--no-tidy", action="store_true", help="leave out clang-tidy (minutes on everything)")
    parser.add_argument("files", nargs="*", help="only these")
    options = parser.parse_args(arguments)
    files = options.files or (all_files() if options.all else changed_files())
    failed = 0
    for name, chosen, function in checks(files, not options.no_tidy):
        code, said = function(chosen)
        if code == 0:
            print(f"ok      {name} ({len(chosen)} files)", flush=True)
        else:
            failed += 1
            print(f"FAILED  {name}\n{said}", flush=True)
    print(f"{len(files)} files, {failed} checks failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
