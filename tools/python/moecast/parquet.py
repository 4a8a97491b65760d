"""Rows of `moecast sweep` as Parquet: `python3 -m moecast.parquet ROWS.csv FILE.parquet`, called by the program."""

import argparse
import os
import pathlib
import sys

#: What the end of a column's name says about its unit; the first that fits. Counts and degrees have none.
UNITS = (
    ("_tokens_per_s", "token/s"),
    ("_bytes_per_s", "B/s"),
    ("_bytes", "B"),
    ("_ratio", "1"),
    ("_s", "s"),
    ("flops", "FLOP"),
    ("tokens", "token"),
)
#: Bytes of text that are read at a time: memory stays bounded, and a row group has some ten thousand rows.
_BLOCK = 16 << 20


def unit_of(column):
    """ "latency_s" -> "s"; None where a name says no unit."""
    return next((unit for end, unit in UNITS if column.endswith(end)), None)


def write(rows, file, *, text=(), whole=(), question=None):
    """Writes a CSV file of a sweep as Parquet: FILE is there as a whole or not at all.

    Parameters
    ----------
    rows: CSV with a header; an empty cell is null.
    text, whole: columns of words and of whole numbers; all others are float64.
    question: text that goes into the file's metadata under "moecast": what the rows answer.

    Each column with a unit says it in its metadata ("unit"). Returns the number of rows. Raises pyarrow.ArrowInvalid on
    a cell of another type, OSError where the file cannot be written.
    """
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    with open(rows, encoding="utf-8") as lines:
        names = lines.readline().rstrip("\n").split(",")
    kinds = {name: pyarrow.float64() for name in names}
    kinds.update({name: pyarrow.string() for name in text}, **{name: pyarrow.int64() for name in whole})
    fields = []
    for name in names:
        unit = unit_of(name) if kinds[name] != pyarrow.string() else None
        fields.append(pyarrow.field(name, kinds[name], metadata={"unit": unit} if unit else None))
    schema = pyarrow.schema(fields, metadata={"moecast": question} if question else None)
    convert = pyarrow.csv.ConvertOptions(
        column_types=kinds, include_columns=names, null_values=[""], strings_can_be_null=True
    )
    unfinished = f"{file}.tmp"
    count = 0
    try:
        with (
            pyarrow.csv.open_csv(
                rows, read_options=pyarrow.csv.ReadOptions(block_size=_BLOCK), convert_options=convert
            ) as blocks,
            pyarrow.parquet.ParquetWriter(unfinished, schema, compression="zstd") as table,
        ):
            for block in blocks:
                table.write_batch(pyarrow.RecordBatch.from_arrays(block.columns, schema=schema))
                count += block.num_rows
        with open(unfinished, "rb") as done:
            os.fsync(done.fileno())
        os.replace(unfinished, file)
    finally:
        pathlib.Path(unfinished).unlink(missing_ok=True)
    return count


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="moecast.parquet", description=__doc__)
    parser.add_argument("rows", nargs="?", help="CSV of a sweep")
    parser.add_argument("file", nargs="?", help="Parquet to write")
    parser.add_argument("--text", default="", help="columns of words: a,b,c")
    parser.add_argument("--whole", default="", help="columns of whole numbers")
    parser.add_argument("--question", help="file whose text goes into the metadata")
    parser.add_argument("--check", action="store_true", help="only say whether pyarrow is there")
    asked = parser.parse_args(arguments)
    try:
        import pyarrow
        import pyarrow.parquet  # noqa: F401 (an own library, which may be missing)
    except ImportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 4
    if asked.check:
        return 0
    if not asked.file:
        parser.error("names a CSV file and a Parquet file")
    words = [[name for name in names.split(",") if name] for names in (asked.text, asked.whole)]
    try:
        question = pathlib.Path(asked.question).read_text(encoding="utf-8") if asked.question else None
        write(asked.rows, asked.file, text=words[0], whole=words[1], question=question)
    except pyarrow.ArrowInvalid as error:
        print(f"error: {asked.rows}: {error}", file=sys.stderr)
        return 3
    except OSError as error:
        print(f"error: {asked.file}: {error}", file=sys.stderr)
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main())
