"""The code rules hold in this tree, and each of them can fail."""

from pathlib import Path

import pytest

from code_rules import check_tree, source_files

ROOT = Path(__file__).resolve().parents[2]


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_this_tree_keeps_the_rules():
    assert len(source_files(ROOT)) > 50
    assert check_tree(ROOT) == []


@pytest.mark.parametrize(
    ("folder", "target"),
    [
        ("models", "hwprofiles"),
        ("models", "sim"),
        ("models", "profiler"),
        ("models", "tools"),
        ("hwprofiles", "sim"),
        ("hwprofiles", "profiler"),
        ("hwprofiles", "tools"),
        ("sim", "profiler"),
        ("sim", "tools"),
        ("profiler", "sim"),
        ("profiler", "tools"),
        ("tools", "tests"),
    ],
)
def test_an_include_against_the_arrow_is_refused(tmp_path, folder, target):
    tree(tmp_path, {f"{folder}/a.cpp": f'#include "{target}/b.h"\n', f"{target}/b.h": "#pragma once\n"})
    assert check_tree(tmp_path) == [f"{folder}/a.cpp:1: {folder}/ must not include {target}/b.h"]


def test_an_include_along_the_arrow_is_fine(tmp_path):
    tree(tmp_path, {"tools/a.cpp": '#include "sim/b.h"\n', "sim/b.h": "#pragma once\n"})
    assert check_tree(tmp_path) == []


def test_an_include_that_is_not_from_the_root_is_refused(tmp_path):
    tree(tmp_path, {"sim/a.cpp": '\n#include "b.h"\n', "sim/b.h": "#pragma once\n"})
    assert check_tree(tmp_path) == ['sim/a.cpp:2: "b.h" is not a file from the repository root']


def test_two_types_of_one_name_are_refused(tmp_path):
    text = "namespace moecast {\nstruct Rows {\n  int count = 0;\n};\n}  // namespace moecast\n"
    tree(tmp_path, {"sim/a.cpp": text, "profiler/b.cpp": text})
    assert check_tree(tmp_path) == ["sim/a.cpp:2: Rows is defined at profiler/b.cpp:2 too: one program, one definition"]


def test_hidden_nested_and_declared_types_may_share_names(tmp_path):
    hidden = "namespace {\nstruct Rows {\n};\n}  // namespace\n"
    nested = "struct Owner::Rows {\n};\nstruct Rows;\n"
    tree(tmp_path, {"sim/a.cpp": hidden, "sim/b.cpp": hidden + nested, "sim/c.h": "#pragma once\nclass Rows {\n};\n"})
    assert check_tree(tmp_path) == []


@pytest.mark.parametrize("header", ["nlohmann/json.hpp", "CLI/CLI.hpp", "benchmark/benchmark.h", "dnnl.hpp", "mpi.h"])
def test_a_heavy_header_belongs_in_a_source_file(tmp_path, header):
    text = f"#pragma once\n#include <{header}>\n"
    tree(tmp_path, {"sim/a.h": text, "sim/a.cpp": text})
    assert check_tree(tmp_path) == [f"sim/a.h:2: <{header}> belongs in a .cpp file"]


def test_the_forward_header_of_json_is_light(tmp_path):
    tree(tmp_path, {"models/a.h": "#pragma once\n#include <nlohmann/json_fwd.hpp>\n"})
    assert check_tree(tmp_path) == []


def test_a_long_file_is_refused(tmp_path):
    tree(tmp_path, {"sim/a.cpp": "\n" * 601, "sim/b.cpp": "\n" * 600})
    assert check_tree(tmp_path) == ["sim/a.cpp:601: 601 lines, split it (at most 600)"]


def test_a_circle_of_headers_is_refused(tmp_path):
    tree(
        tmp_path,
        {
            "sim/a.h": '#pragma once\n#include "sim/b.h"\n',
            "sim/b.h": '#pragma once\n#include "sim/c.h"\n',
            "sim/c.h": '#pragma once\n#include "sim/b.h"\n',
        },
    )
    assert check_tree(tmp_path) == ["sim/b.h:1: headers include each other: sim/b.h -> sim/c.h -> sim/b.h"]


def test_a_header_without_a_guard_is_refused(tmp_path):
    tree(tmp_path, {"models/a.h": "int f();\n"})
    assert check_tree(tmp_path) == ["models/a.h:1: no #pragma once"]
