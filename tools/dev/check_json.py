"""Checks JSON files: no duplicate keys, no NaN, and the schema of those that have one.

usage: check_json.py FILE...                   schemas by place, see SCHEMAS
       check_json.py --schema SCHEMA FILE...   one schema for all of them
Prints "file: pointer: problem", ends with 1 if there is any.
"""

import json
import sys
from fnmatch import fnmatch
from pathlib import Path

import jsonschema

ROOT = Path(__file__).resolve().parents[2]
# Pattern of a path from the repository root -> its schema. The first that fits counts.
SCHEMAS = [
    ("hwprofiles/*/profile.json", "hwprofiles/profile.schema.json"),
    ("hwprofiles/*/backends/*.json", "hwprofiles/backend_rules.schema.json"),
    ("hwprofiles/clusters/*.json", "hwprofiles/cluster.schema.json"),
    ("hwprofiles/benchmarks/*.json", "hwprofiles/benchmark.schema.json"),
    ("models/zoo/*.schema.json", None),
    ("models/zoo/*.json", "models/architecture/architecture.schema.json"),
]
# Not JSON on purpose: what the readers have to refuse.
IGNORED = ["tests/fuzz/corpus/*", "tests/data/broken/*"]


def refuse_duplicates(pairs):
    result = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f'the key "{key}" occurs twice')
        result[key] = value
    return result


def refuse_constant(name):
    raise ValueError(f"{name} is not JSON")


def load(path: Path):
    """@raises ValueError where the text is not strict JSON."""
    text = path.read_text(encoding="utf-8")
    return json.loads(text, object_pairs_hook=refuse_duplicates, parse_constant=refuse_constant)


def schema_of(path: Path) -> Path | None:
    """The schema by the file's place; None when it has none, or none yet."""
    try:
        place = path.resolve().relative_to(ROOT).as_posix()
    except ValueError:
        return None
    for pattern, schema in SCHEMAS:
        if fnmatch(place, pattern):
            return ROOT / schema if schema and (ROOT / schema).is_file() else None
    return None


def pointer(error: jsonschema.ValidationError) -> str:
    return "/" + "/".join(str(part) for part in error.absolute_path)


def check(path: Path, schema: Path | None) -> list[str]:
    """Every problem of one file."""
    try:
        document = load(path)
    except (ValueError, OSError) as problem:
        return [f"{path}: {problem}"]
    if path.name.endswith(".schema.json"):
        try:
            jsonschema.Draft202012Validator.check_schema(document)
        except jsonschema.SchemaError as problem:
            return [f"{path}: {problem.message}"]
    if schema is None:
        return []
    validator = jsonschema.Draft202012Validator(load(schema))
    errors = sorted(validator.iter_errors(document), key=lambda error: list(map(str, error.absolute_path)))
    return [f"{path}: {pointer(error)}: {error.message}" for error in errors]


def main(arguments: list[str]) -> int:
    given = None
    if arguments[:1] == ["--schema"]:
        given, arguments = Path(arguments[1]), arguments[2:]
    problems = []
    for name in arguments:
        if any(fnmatch(name, pattern) for pattern in IGNORED):
            continue
        path = Path(name)
        problems += check(path, given or schema_of(path))
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
