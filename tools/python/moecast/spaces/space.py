"""A space: its fields, its genomes (one index of a choice a gene) and the architectures that they stand for."""

import difflib
import hashlib
import json
import math
import pathlib

import numpy

from moecast._core import Architecture, InputError, UsageError
from moecast._data import SHARE
from moecast.spaces.families import FAMILIES
from moecast.spaces.fields import MOST_EXPERTS, MOST_LAYERS, read_field
from moecast.spaces.values import check_words, check_workload, plain

_FOLDER = SHARE / "models" / "spaces"
#: A space up to this size can be listed.
MOST_LISTED = 5_000_000
#: Short names of spaces.
_ALIASES = {"automoe": "automoe-wmt14-en-de"}
_RULES = ("encoder_at_least_decoder",)


def space_names():
    """Names of the spaces that ship."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def load_space(name):
    """A space by its name, from a JSON file, or from a dict. Raises UsageError or InputError."""
    if isinstance(name, Space):
        return name
    if isinstance(name, dict):
        return Space(name)
    try:
        path = pathlib.Path(_ALIASES.get(name, name))
    except TypeError:
        raise UsageError(f"space: {name!r} is no name, file or dict") from None
    if path.suffix != ".json" and "/" not in str(name):
        path = _FOLDER / f"{path}.json"
        if not path.is_file():
            near = difflib.get_close_matches(str(name), space_names(), 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(space_names())}"
            raise UsageError(f"space: {str(name)!r} is not known ({hint})")
    if not path.is_file():
        raise InputError(f"{path}: cannot be read: there is no such file")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    try:
        description = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON: {error}") from None
    return Space(description, str(path))


class Space:
    """Choices of a family of architectures.

    `description`: {"moecast_space": 1, "name": ..., "family": ..., "fields": {name: value, [choices],
    {"per_layer": [choices]} or {"per_expert": [choices]}}}; tuples, ranges and arrays are lists too. A genome is a
    vector of `len(space.genes)` indices of choices. Raises InputError that names the field on unknown fields, an empty
    space, or too many layers.
    """

    def __init__(self, description, where="space"):
        if not isinstance(description, dict) or description.get("moecast_space") != 1:
            raise InputError(f'{where}: is no description of a space ("moecast_space": 1 is missing)')
        try:
            description = plain(description, where)
        except (RecursionError, OverflowError) as error:
            raise InputError(f"{where}: cannot be read: {error}") from None
        unknown = set(description) - {
            "moecast_space",
            "name",
            "family",
            "fields",
            "source",
            "notes",
            "workload",
            "rules",
            "objectives",
        }
        if unknown:
            raise InputError(f"{where}: /{sorted(unknown, key=str)[0]}: is not known")
        family = description.get("family")
        if not isinstance(family, str) or family not in FAMILIES:
            raise InputError(f"{where}: /family: {family!r} is not known (write one of {', '.join(FAMILIES)})")
        self.description = description
        self.name = str(description.get("name", where))
        self.family_name = family
        self.family = FAMILIES[family]
        self.rules = description.get("rules", [])
        self.workload = description.get("workload", {})
        self.objectives = description.get("objectives", ["latency"])
        self._where = where
        check_words(self.rules, "rules", _RULES, where)
        check_words(self.objectives, "objectives", (), where)
        check_workload(self.workload, where)
        if self.rules and self.family.stacks != ("encoder", "decoder"):
            raise InputError(f"{where}: /rules: a space of family {family!r} has no encoder and decoder")
        self._read_fields(description.get("fields"))
        self.genes = [name for f in self.fields.values() for name in f.gene_names()]
        self.sizes = numpy.concatenate(
            [numpy.full(f.genes, len(f.choices), numpy.int64) for f in self.fields.values()]
            or [numpy.empty(0, numpy.int64)]
        )

    def _read_fields(self, fields):
        if not isinstance(fields, dict):
            raise InputError(f"{self._where}: /fields: is missing")
        known = self.family.fields
        for name in fields:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, 1)
                raise InputError(
                    f"{self._where}: /fields/{name}: a space of family {self.family_name!r} has no such "
                    f"field" + (f" (did you mean {near[0]!r}?)" if near else "")
                )
        for name in self.family.required:
            if name not in fields:
                raise InputError(f"{self._where}: /fields/{name}: is missing")

        def most(stack, what):
            spec = fields.get(f"{stack}.{what}", known.get(f"{stack}.{what}"))
            choices = (
                spec if isinstance(spec, list) else next(iter(spec.values())) if isinstance(spec, dict) else [spec]
            )
            limit = MOST_LAYERS if what == "layers" else MOST_EXPERTS
            if not isinstance(choices, list) or not choices:
                raise InputError(f"{self._where}: /fields/{stack}.{what}: there is nothing to choose from")
            if not all(type(c) is int and 1 <= c <= limit for c in choices):
                raise InputError(f"{self._where}: /fields/{stack}.{what}: expected whole numbers from 1 to {limit}")
            return max(choices)

        self.fields = {}
        first = 0
        for name, default in known.items():
            optional = default is None and name not in self.family.required
            field = read_field(name, fields.get(name, default), first, most, optional, self._where)
            if name.endswith(".layers") and field.scope not in ("fixed", "global"):
                raise InputError(f"{self._where}: /fields/{name}: is one number for the whole stack")
            self.fields[name] = field
            first += field.genes
        self.family.check(self.fields, self._where)
        self.layers = {stack: most(stack, "layers") for stack in self.family.stacks}
        self._layer_fields = {
            stack: [
                (f.name.removeprefix(f"{stack}."), f)
                for f in self.fields.values()
                if "." not in f.name or f.name.startswith(f"{stack}.")
            ]
            for stack in self.family.stacks
        }

    def __repr__(self):
        return f"<moecast.Space {self.name}: {len(self.genes)} genes, {self.size():.3g} architectures>"

    def size(self):
        """Number of genomes (an int, however large)."""
        return math.prod(int(s) for s in self.sizes)

    def random(self, count, seed=None):
        """`count` genomes, uniform over the choices: int64 of shape [count, genes]. `seed`: int or Generator. Raises
        UsageError."""
        try:
            generator = numpy.random.default_rng(seed)
            genomes = generator.integers(0, self.sizes, (count, len(self.sizes)))
        except (TypeError, ValueError) as error:
            raise UsageError(f"random: count {count!r}, seed {seed!r}: {error}") from None
        return self.repaired(genomes)

    def all(self):
        """Every genome, the last gene fastest. Raises InputError above five million."""
        if self.size() > MOST_LISTED:
            raise InputError(f"{self.name}: {self.size():.3g} architectures are too many to list")
        if len(self.sizes) == 0:
            return numpy.zeros((1, 0), numpy.int64)
        grid = numpy.indices(tuple(self.sizes)).reshape(len(self.sizes), -1).T
        return numpy.ascontiguousarray(grid[self.valid(grid)])

    def valid(self, genomes):
        """Which genomes keep the rules of the space."""
        keep = numpy.ones(len(genomes), bool)
        if "encoder_at_least_decoder" in self.rules:
            keep &= self.values("encoder.layers", genomes) >= self.values("decoder.layers", genomes)
        return keep

    def repaired(self, genomes):
        """Genomes that break a rule, with the fewest changes that mend them."""
        if "encoder_at_least_decoder" in self.rules and not (keep := self.valid(genomes)).all():
            field = self.fields["decoder.layers"]
            order = numpy.argsort(field.choices)
            for row in numpy.flatnonzero(~keep):
                limit = self.fields["encoder.layers"].value(genomes[row], 0)
                fitting = [i for i in order if field.choices[i] <= limit]
                genomes[row, field.first] = fitting[-1] if fitting else order[0]
        return genomes

    def values(self, name, genomes):
        """Values of a field with one value a model, as an array."""
        field = self.fields[name]
        if field.scope == "fixed":
            return numpy.full(len(genomes), field.choices[0])
        return numpy.array(field.choices)[genomes[:, field.first]]

    @property
    def fingerprint(self):
        """16 hex digits, equal for spaces whose genomes mean the same."""
        fields = json.dumps([[f.name, f.scope, f.choices] for f in self.fields.values()])
        return hashlib.sha256(fields.encode()).hexdigest()[:16]

    def checked(self, genomes):
        """An int64 array of shape [n, genes] of valid indices. Raises InputError naming row and gene."""
        array = numpy.asarray(genomes)
        if array.ndim == 1:
            array = array[None, :]
        if array.ndim != 2 or array.shape[1] != len(self.sizes):
            raise InputError(f"genomes: have shape {numpy.shape(genomes)}, expected [n, {len(self.sizes)}]")
        if array.dtype.kind not in "iu":
            whole = array.dtype.kind == "f" and numpy.isfinite(array).all() and (array == numpy.rint(array)).all()
            if not whole:
                raise InputError(f"genomes: have dtype {array.dtype}, expected whole numbers")
        with numpy.errstate(invalid="ignore"):  # what is too large for an index is out of range below
            array = array.astype(numpy.int64)
        bad = (array < 0) | (array >= self.sizes)
        if bad.any():
            row, gene = (int(i) for i in numpy.argwhere(bad)[0])
            raise InputError(f"genomes: row {row}: {self.genes[gene]} has no choice number {array[row, gene]}")
        return array

    def encode(self, choices):
        """The genome of a dict of gene names (or of a field for all its layers) and values. Unnamed: first choice."""
        if not isinstance(choices, dict):
            raise InputError(f"genes: {choices!r} is no dict of names and values")
        genome = numpy.zeros(len(self.sizes), numpy.int64)
        places = {name: (f, f.first + i) for f in self.fields.values() for i, name in enumerate(f.gene_names())}
        for name, value in choices.items():
            field = places[name][0] if name in places else self.fields.get(name)
            if field is None or field.scope == "fixed":
                raise InputError(f"{name}: is no gene of {self.name}")
            value = plain(value, name)
            if isinstance(value, (list, dict)) or value not in field.choices:
                raise InputError(f"{name}: {value!r} is no choice (write one of {', '.join(map(str, field.choices))})")
            index = field.choices.index(value)
            if name in places:
                genome[places[name][1]] = index
            else:
                genome[field.first : field.first + field.genes] = index
        return genome

    def decode(self, genome):
        """Gene names and their values."""
        genome = self.checked(genome)[0]
        return {
            name: f.choices[genome[f.first + i]] for f in self.fields.values() for i, name in enumerate(f.gene_names())
        }

    def layer_values(self, stack, genome, layer):
        """Values of the fields of one layer, without the stack's name."""
        return {name: field.value(genome, layer) for name, field in self._layer_fields[stack]}

    def layer_count(self, stack, genome):
        return self.fields[f"{stack}.layers"].value(genome, 0)

    def frame(self, genome):
        """The own schema of a genome's model without its layers."""
        return {
            "moecast_architecture": 1,
            "name": self.name,
            **self.family.frame(lambda name: self.fields[name].value(genome, 0)),
        }

    def describe(self, genome):
        """The own schema of a genome's model, as a dict."""
        genome = self.checked(genome)[0]
        description = self.frame(genome)
        for stack in self.family.stacks:
            description[stack] = [
                {"blocks": self.family.blocks(stack, self.layer_values(stack, genome, layer))}
                for layer in range(self.layer_count(stack, genome))
            ]
        return description

    def architecture(self, genome):
        """The Architecture of a genome. Raises InputError where the choices make no model."""
        return Architecture.from_text(json.dumps(self.describe(genome)), self.name)
