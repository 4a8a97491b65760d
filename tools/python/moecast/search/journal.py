"""What callbacks answered, appended line by line: a restarted search continues from it."""

import json
import os

from moecast._core import InputError


class Journal:
    """JSON lines: a header that names the search, then {"genome": [...], "metric": name, "value": v or null}.

    A last line that was cut off by a kill is dropped; any other damage raises InputError with its line.
    """

    def __init__(self, path, header):
        self.path = path
        self.known = {}
        first = json.dumps(header) + "\n"
        if os.path.exists(path) and not self._only_begun(first):
            self._read(header)
        else:
            with open(path, "w", encoding="utf-8") as file:
                file.write(first)
        self._file = open(path, "a", encoding="utf-8")

    def _only_begun(self, first):
        """Whether a kill left nothing but a piece of the first line."""
        with open(self.path, "rb") as file:
            return first.encode().startswith(file.read(len(first) + 1))

    def _read(self, header):
        try:
            with open(self.path, "rb") as file:
                content = file.read()
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read: {error}") from None
        complete = content.rfind(b"\n") + 1
        lines = content[:complete].split(b"\n")[:-1]
        try:
            found = json.loads(lines[0]) if lines else None
        except ValueError:
            found = None
        if not isinstance(found, dict) or "moecast_search" not in found:
            raise InputError(f"{self.path}: line 1: is no journal of a search")
        different = [k for k in header if found.get(k) != header[k]]
        if different:
            raise InputError(f"{self.path}: belongs to another search ({different[0]} differs)")
        for number, line in enumerate(lines[1:], 2):
            try:
                entry = json.loads(line)
                key = tuple(int(i) for i in entry["genome"]), str(entry["metric"])
                value = None if entry["value"] is None else float(entry["value"])
            except (ValueError, KeyError, TypeError):
                raise InputError(f"{self.path}: line {number}: is damaged (delete the file to start anew)") from None
            self.known[key] = value
        if complete != len(content):
            with open(self.path, "r+b") as file:
                file.truncate(complete)

    def get(self, genome, metric):
        """(known, value); a value of None stands for a callback that failed."""
        key = tuple(int(i) for i in genome), metric
        return key in self.known, self.known.get(key)

    def add(self, genome, metric, value):
        key = tuple(int(i) for i in genome), metric
        self.known[key] = value
        self._file.write(json.dumps({"genome": list(key[0]), "metric": metric, "value": value}) + "\n")
        self._file.flush()

    def close(self):
        self._file.close()


class Memory:
    """The same without a file."""

    def __init__(self):
        self.known = {}

    def get(self, genome, metric):
        key = genome.tobytes(), metric
        return key in self.known, self.known.get(key)

    def add(self, genome, metric, value):
        self.known[genome.tobytes(), metric] = value

    def close(self):
        pass
