"""Checks what a compiler does not: who includes whom, what a header may pull in, how long a file is.

usage: code_rules.py [ROOT]     prints "file:line: problem", ends with 1 if there is any
"""

import re
import sys
from pathlib import Path

# DESIGN: models <- hwprofiles <- {sim, profiler} <- tools. A folder may include what stands beside it here.
MAY_INCLUDE = {
    "models": {"models"},
    "hwprofiles": {"models", "hwprofiles"},
    "sim": {"models", "hwprofiles", "sim"},
    "profiler": {"models", "hwprofiles", "profiler"},
    "tools": {"models", "hwprofiles", "sim", "profiler", "tools"},
    "tests": {"models", "hwprofiles", "sim", "profiler", "tools", "tests"},
}
# Slow to compile or free to change: kept out of headers, so that a change of library touches .cpp files only.
HEAVY_HEADERS = re.compile(
    r"^(nlohmann/json\.hpp|CLI/.*|benchmark/.*|dnnl.*|oneapi/.*|cblas\.h|simgrid/.*|nanobind/.*|cupti.*|cuda.*|mpi\.h)$"
)
MOST_LINES = 600
SOURCE_ENDINGS = {".h", ".hpp", ".c", ".cpp", ".cu", ".cuh"}
HEADER_ENDINGS = {".h", ".hpp"}
# A type of the product at file scope; tests have theirs, each program its own.
TYPE = re.compile(r"^(?:struct|class|union|enum class|enum) (\w+)(?!\w|::)[^;]*\{")
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]')


def source_files(root: Path) -> list[Path]:
    """Every C, C++ and CUDA file of the layers, relative to the root."""
    found = []
    for folder in MAY_INCLUDE:
        for path in (root / folder).rglob("*"):
            if path.suffix in SOURCE_ENDINGS and path.is_file():
                found.append(path.relative_to(root))
    return sorted(found)


def includes(path: Path) -> list[tuple[int, str, str]]:
    """(line, '<' or '"', what) of every #include."""
    result = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        match = INCLUDE.match(line)
        if match:
            result.append((number, match.group(1), match.group(2)))
    return result


def check_include(root: Path, file: Path, quote: str, what: str) -> str | None:
    """What is wrong with one #include, or None."""
    target = what.split("/", 1)[0]
    if target in MAY_INCLUDE and target not in MAY_INCLUDE[file.parts[0]]:
        return f"{file.parts[0]}/ must not include {what}"
    if quote == '"' and not (root / what).is_file():
        return f'"{what}" is not a file from the repository root'
    if quote == "<" and target in MAY_INCLUDE and (root / what).is_file():
        return f'own header: write "{what}"'
    if file.suffix in HEADER_ENDINGS and HEAVY_HEADERS.match(what):
        return f"<{what}> belongs in a .cpp file"
    return None


def find_cycle(graph: dict[str, list[str]]) -> list[str] | None:
    """A path of headers that ends where it began, or None."""
    finished: set[str] = set()
    for start in graph:
        path, stack = [], [(start, iter(graph[start]))]
        path.append(start)
        while stack:
            node, children = stack[-1]
            child = next(children, None)
            if child is None:
                finished.add(node)
                path.pop()
                stack.pop()
            elif child in path:
                return path[path.index(child) :] + [child]
            elif child in graph and child not in finished:
                path.append(child)
                stack.append((child, iter(graph[child])))
    return None


def own_types(text: str) -> list[tuple[int, str]]:
    """(line, name) of every type at file scope; those of anonymous namespaces are a file's own."""
    found, hidden = [], False
    for number, line in enumerate(text.splitlines(), start=1):
        if line == "namespace {":
            hidden = True
        elif line == "}  // namespace":
            hidden = False
        elif not hidden and (match := TYPE.match(line)):
            found.append((number, match.group(1)))
    return found


def check_tree(root: Path) -> list[str]:
    """Every problem as "file:line: problem"."""
    problems = []
    graph: dict[str, list[str]] = {}
    types: dict[str, str] = {}
    for file in source_files(root):
        found = includes(root / file)
        for line, quote, what in found:
            problem = check_include(root, file, quote, what)
            if problem:
                problems.append(f"{file}:{line}: {problem}")
        text = (root / file).read_text(encoding="utf-8")
        lines = text.count("\n")
        if lines > MOST_LINES:
            problems.append(f"{file}:{lines}: {lines} lines, split it (at most {MOST_LINES})")
        if file.parts[0] != "tests" and file.suffix != ".hpp":  # which other people's programs compile
            for line, name in own_types(text):
                other = types.setdefault(name, f"{file}:{line}")
                if other != f"{file}:{line}":
                    problems.append(f"{file}:{line}: {name} is defined at {other} too: one program, one definition")
        if file.suffix in HEADER_ENDINGS:
            graph[str(file)] = [what for _, quote, what in found if quote == '"']
            if "#pragma once" not in text:
                problems.append(f"{file}:1: no #pragma once")
    cycle = find_cycle(graph)
    if cycle:
        problems.append(f"{cycle[0]}:1: headers include each other: {' -> '.join(cycle)}")
    return problems


def main() -> int:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    count = len(source_files(root))
    if count == 0:
        print(f"{root}: no source files found", file=sys.stderr)
        return 1
    problems = check_tree(root)
    for problem in problems:
        print(problem)
    print(f"{count} files, {len(problems)} problems", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
