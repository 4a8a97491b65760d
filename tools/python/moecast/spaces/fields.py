"""Fields of a space: a fixed value, one choice for all layers, one for each layer, or one for each expert."""

import dataclasses

from moecast._core import InputError
from moecast.spaces.values import check_value

#: Most layers of a stack and experts of a layer in a space.
MOST_LAYERS = 512
MOST_EXPERTS = 1024


@dataclasses.dataclass(frozen=True)
class Field:
    """`scope`: fixed, global, layer or expert. `first`: column of the first gene in a genome, -1 if fixed."""

    name: str
    scope: str
    choices: tuple
    first: int
    layers: int = 1  #: genes of scope layer and expert: one for each layer ...
    experts: int = 1  #: ... and for each expert

    @property
    def genes(self):
        """Number of genes."""
        return 0 if self.scope == "fixed" else self.layers * self.experts

    def columns(self, layer):
        """Genes that the layer reads."""
        if self.scope == "fixed":
            return []
        if self.scope == "global":
            return [self.first]
        start = self.first + layer * self.experts
        return list(range(start, start + self.experts))

    def value(self, genome, layer):
        """The value of a layer; a tuple where each expert has its own."""
        if self.scope == "fixed":
            return self.choices[0]
        values = tuple(self.choices[genome[c]] for c in self.columns(layer))
        return values if self.scope == "expert" else values[0]

    def gene_names(self):
        if self.scope == "fixed":
            return []
        if self.scope == "global":
            return [self.name]
        stack, _, rest = self.name.rpartition(".")
        prefix = stack + "." if stack else ""
        if self.scope == "layer":
            return [f"{prefix}{layer}.{rest}" for layer in range(self.layers)]
        return [f"{prefix}{layer}.{expert}.{rest}" for layer in range(self.layers) for expert in range(self.experts)]


_SCOPES = {"per_layer": "layer", "per_expert": "expert"}


def read_field(name, spec, first, most, optional, where):
    """`most(stack, what)`: the largest number of layers, or of experts, that the space allows in the field's stack.
    `optional`: null is a value. Raises InputError."""
    if isinstance(spec, dict):
        if len(spec) != 1 or next(iter(spec)) not in _SCOPES:
            raise InputError(f"{where}: /fields/{name}: expected a value, a list, per_layer or per_expert")
        word, choices = next(iter(spec.items()))
        scope = _SCOPES[word]
    elif isinstance(spec, list):
        scope, choices = "global", spec
    else:
        check_value(name, spec, optional, where)
        return Field(name, "fixed", (spec,), -1)
    if not isinstance(choices, list) or not choices:
        raise InputError(f"{where}: /fields/{name}: there is nothing to choose from")
    for choice in choices:
        check_value(name, choice, optional, where)
    if len(set(choices)) != len(choices):
        raise InputError(f"{where}: /fields/{name}: a choice is listed twice")
    stack = name.rpartition(".")[0]
    layers = most(stack, "layers") if scope != "global" else 1
    experts = most(stack, "experts") if scope == "expert" else 1
    return Field(name, scope, tuple(choices), first, layers, experts)
