"""What callbacks answered, appended line by line: a restarted search continues from it."""

import json
import math
import os
import pathlib
import threading

import numpy

from moecast._core import InputError, UsageError

#: Bytes of the longest line that a journal may have.
LONGEST_LINE = 1 << 24


class Memory:
    """Answers of callbacks by genome and metric; None where one failed."""

    def __init__(self):
        self.known = {}

    def get(self, genome, metric):
        """(known, value); a value of None stands for a callback that failed."""
        key = genome.tobytes(), metric
        return key in self.known, self.known.get(key)

    def add(self, genome, metric, value):
        self.known[genome.tobytes(), metric] = value

    def close(self):
        pass


class Journal(Memory):
    """The same in a file of JSON lines: a header that names the search, then {"genome": [...], "metric": name,
    "value": v}. Failures are not written: a restarted search calls again.

    A last line that was cut off by a kill is dropped; any other damage raises InputError with its line. `what` the
    header names: a search, a collection.
    """

    def __init__(self, path, header, what="search"):
        super().__init__()
        try:
            self.path = pathlib.Path(path)
        except TypeError:
            raise UsageError(f"resume: {path!r} is no path of a file") from None
        first = json.dumps(header).encode() + b"\n"
        try:
            if self.path.exists() and not self._only_begun(first):
                self._read(header, what)
            else:
                self.path.write_bytes(first)
            self._file = open(self.path, "a", encoding="utf-8")
        except InputError:
            raise
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path}: cannot be used as a journal: {error}") from None
        self._lock = threading.Lock()

    def add(self, genome, metric, value):
        super().add(genome, metric, value)
        if value is None:
            return
        line = json.dumps({"genome": genome.tolist(), "metric": metric, "value": value}) + "\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()

    def close(self):
        self._file.close()

    def _only_begun(self, first):
        """Whether a kill left nothing but a piece of the first line. Raises InputError for what is no file."""
        if not self.path.is_file():
            raise InputError(f"{self.path}: is no regular file (write the path of a file, or of none yet)")
        with open(self.path, "rb") as file:
            return first.startswith(file.read(len(first) + 1))

    def _read(self, header, what):
        complete = 0
        with open(self.path, "rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), 1):
                if not line.endswith(b"\n"):
                    if len(line) == LONGEST_LINE:
                        raise InputError(f"{self.path}: line {number}: is too long")
                    break
                complete += len(line)
                if number == 1:
                    self._check_header(_parsed(line), header, what)
                else:
                    self._add_line(number, line)
        if complete == 0:
            raise InputError(f"{self.path}: line 1: is no journal of a {what}")
        if complete != self.path.stat().st_size:
            os.truncate(self.path, complete)

    def _check_header(self, found, header, what):
        if not isinstance(found, dict) or "moecast_search" not in found:
            raise InputError(f"{self.path}: line 1: is no journal of a {what}")
        different = [key for key in header if found.get(key) != header[key]]
        if different:
            raise InputError(
                f"{self.path}: belongs to another {what} ({different[0]} differs; name another file to begin anew)"
            )

    def _add_line(self, number, line):
        entry = _parsed(line)
        try:
            genome, metric, value = entry["genome"], entry["metric"], entry["value"]
            whole = all(type(i) is int and 0 <= i < 2**31 for i in genome)
            finite = value is None or (type(value) in (int, float) and math.isfinite(value))
            good = whole and finite and isinstance(metric, str)
        except (KeyError, TypeError, OverflowError):
            good = False
        if not good:
            raise InputError(f"{self.path}: line {number}: is damaged (delete the file to begin anew)")
        if value is not None:
            super().add(numpy.array(genome, numpy.int64), metric, float(value))


def _parsed(line):
    """The JSON of a line; None where it is none."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
