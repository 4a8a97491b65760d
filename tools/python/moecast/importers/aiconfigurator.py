"""Parquet tables of the PyPI package aiconfigurator-core, imported into an own profile."""

import csv
import importlib.util
import json
import os
import pathlib
import subprocess
import tempfile

from moecast._core import DeviceError, InputError, UsageError
from moecast.program import program

#: Rows that are converted at a time: memory stays bounded.
_BLOCK = 1 << 16
_SUFFIX = "_perf.parquet"


def aiconfigurator(path=None, *, system, out=None, only=None, options=()):
    """Imports every table of a system that `moecast import table` knows.

    Parameters
    ----------
    path: folder of the tables (of the package, or any folder above <system>); None = the installed package.
    system: e.g. "h200_sxm"; the profile is named alike ("h200-sxm").
    out: folder of the profile; None = an own profile of that name.
    only: names of tables, e.g. ["moe", "gemm"]; None = all.
    options: more flags of `moecast import table` (a machine that does not ship needs its --bandwidth, --peak-bf16...).

    Returns a list of dicts, one a table: `table`, `status` (imported, or refused with a `reason`: no cost model reads
    it, or it is no table), `rows`, and what the program says of it (duplicates, defects, rows faster than the
    datasheet). Nothing is dropped silently. Raises InputError on a folder without tables, DeviceError without pyarrow.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise DeviceError("importers.aiconfigurator: needs pyarrow (pip install 'moecast[parquet]')") from None
    root = _root(path)
    tables = _tables(root, system)
    if only is not None:
        missing = set(only) - {t[0] for t in tables}
        if missing:
            raise UsageError(f"only: {sorted(missing)[0]!r} is no table of {system}")
        tables = [t for t in tables if t[0] in set(only)]
    report = []
    with tempfile.TemporaryDirectory(prefix="moecast-import-") as folder:
        for name, framework, version, file in tables:
            copy = os.path.join(folder, f"{name}.{framework}-{version}.csv")
            try:
                rows = _convert(pyarrow.parquet, file, copy)
            except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
                report.append({"table": str(file), "status": "refused", "rows": None, "reason": str(error)})
                continue
            report.append({"table": str(file), "rows": rows, **_import(copy, system, out, options)})
            os.unlink(copy)
    return report


def _root(path):
    if path is not None:
        root = pathlib.Path(path)
        if not root.is_dir():
            raise InputError(f"{root}: is no folder")
        return root
    for package in ("aiconfigurator_core", "aiconfigurator"):
        found = importlib.util.find_spec(package)
        if found is not None and found.submodule_search_locations:
            return pathlib.Path(next(iter(found.submodule_search_locations)))
    raise InputError("aiconfigurator-core is not installed (pip install aiconfigurator-core, or give its folder)")


def _tables(root, system):
    """(table, framework, version, file): .../<system>/.../<framework>/<version>/<table>_perf.parquet."""
    wanted = system.replace("-", "_")
    tables = []
    for file in sorted(root.rglob(f"*{_SUFFIX}")):
        parts = file.relative_to(root.parent).parts
        if wanted in parts[:-1] and len(parts) >= 3:
            tables.append((file.name.removesuffix(_SUFFIX), parts[-3], parts[-2], file))
    if not tables:
        raise InputError(f"{root}: holds no {wanted}/*/*{_SUFFIX}")
    return tables


def _convert(parquet, file, copy):
    """Rows as CSV, streamed."""
    rows = 0
    with parquet.ParquetFile(file) as table, open(copy, "w", newline="", encoding="utf-8") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(table.schema_arrow.names)
        for batch in table.iter_batches(_BLOCK):
            columns = [column.to_pylist() for column in batch.columns]
            rows += batch.num_rows
            writer.writerows(
                ["" if cell is None else repr(cell) if isinstance(cell, float) else cell for cell in row]
                for row in zip(*columns)
            )
    return rows


def _import(copy, system, out, options):
    command = [program(), "import", "table", copy, "--system", system.replace("_", "-"), "--format", "json", *options]
    if out is not None:
        command += ["--out", os.fspath(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()
        return {"status": "refused", "reason": reason[-1] if reason else f"exit code {done.returncode}"}
    try:
        said = json.loads(done.stdout)
    except ValueError:
        said = done.stdout
    return {"status": "imported", "said": said}
