"""Latency of genomes in batches: layers that are alike are costed once."""

import json

import numpy

from moecast._core import Architecture, InputError
from moecast.predictor import Request, Workload, add_columns


class SpaceTimes:
    """Latency, memory, parameters and FLOPs of the genomes of a space on a machine.

    `workload`: a Workload or a Request. Answers are what `Predictor` says of `space.architecture(genome)`, within 1 %
    on a CPU, the same on a GPU (where each new genome is predicted by itself).
    """

    def __init__(self, space, predictor, workload=None):
        self.space = space
        self.predictor = predictor
        self.workload = workload or workload_of(space)
        self._steps = [(times, _Step(space, predictor, step)) for times, step in self.workload.steps()]

    def predict(self, genomes):
        """Columns (see Predictor.predict_batch) of an int array of shape [n, genes]."""
        genomes = self.space.checked(genomes)
        columns = None
        for times, step in self._steps:
            columns = add_columns(columns, step.predict(genomes), times)
        columns = self._mixed(genomes, columns)
        corrected = getattr(self.predictor, "corrected", None)
        return corrected(columns) if corrected else columns

    def _mixed(self, genomes, columns):
        """Mixture of architectures: k whole passes, or one pass after the weights were merged."""
        if self.space.family_name != "architecture-mixture":
            return columns
        top_k = self.space.values("mixture_top_k", genomes)
        experts = self.space.values("mixture_experts", genomes)
        if (top_k > experts).any():
            row = int(numpy.flatnonzero(top_k > experts)[0])
            raise InputError(f"genomes: row {row}: mixture_top_k {top_k[row]} of {experts[row]} experts")
        outputs = self.space.values("mix", genomes) == "outputs"
        for name in (
            "latency_s",
            "latency_low_s",
            "latency_high_s",
            "memory_bandwidth_s",
            "compute_s",
            "routing_overhead_s",
            "flops",
        ):
            columns[name] = columns[name] * numpy.where(outputs, top_k, 1)
        # Merging reads k sets of weights and writes one.
        element = 4.0 if self.space.fields["dtype"].choices[0] == "fp32" else 2.0
        columns["merge_bytes"] = numpy.where(outputs, 0.0, (top_k + 1) * element * columns["total_parameters"])
        columns["memory_bytes"] = columns["memory_bytes"] + (experts - 1) * element * columns["total_parameters"]
        columns["total_parameters"] = columns["total_parameters"] * experts
        return columns

    def one(self, genome):
        """(latency, low, high) of one genome in seconds."""
        columns = self.predict(genome)
        return tuple(float(columns[name][0]) for name in ("latency_s", "latency_low_s", "latency_high_s"))


def workload_of(space):
    """The workload that the description of a space names, else a decode step."""
    fields = dict(space.workload)
    kind = fields.pop("kind", "step")
    try:
        return Request(**fields) if kind == "request" else Workload(**fields)
    except TypeError as error:
        raise InputError(f"{space.name}: /workload: {error}") from None


class _Step:
    """One step: parts of layers, remembered."""

    def __init__(self, space, predictor, step):
        self.space = space
        self.predictor = predictor = getattr(predictor, "base", predictor)  # corrections apply to the sum of all steps
        self.step = step
        self.batch = None if predictor.gpu else predictor.batch(step)
        self.known = {}

    def predict(self, genomes):
        if self.batch is None:
            return self._each(genomes)
        return self.batch.predict(self._parts(genomes))

    def _each(self, genomes):
        unique, inverse = numpy.unique(genomes, axis=0, return_inverse=True)
        architectures = [self.space.architecture(g) for g in unique]
        columns = self.predictor.predict_batch(architectures, self.step)
        return {name: values[inverse.reshape(-1)] for name, values in columns.items()}

    def _parts(self, genomes):
        space = self.space
        frame = [
            c for f in space.fields.values() if "." not in f.name or f.name.endswith(".hidden") for c in f.columns(0)
        ]
        columns = []
        for stack in space.family.stacks:
            columns.append(self._numbers(genomes, stack, None, frame))
            count = space.values(f"{stack}.layers", genomes)
            for layer in range(space.layers[stack]):
                own = [
                    c
                    for f in space.fields.values()
                    if f.name.startswith(f"{stack}.") and not f.name.endswith((".hidden", ".layers"))
                    for c in f.columns(layer)
                ]
                numbers = numpy.full(len(genomes), -1, numpy.int32)
                there = count > layer
                if there.any():
                    numbers[there] = self._numbers(genomes[there], stack, layer, frame + own)
                columns.append(numbers)
        return numpy.ascontiguousarray(numpy.stack(columns, axis=1), numpy.int32)

    def _numbers(self, genomes, stack, layer, used):
        """Part numbers of one layer of all genomes, which differ in the genes `used` only."""
        sizes = self.space.sizes[used]
        if len(used) == 0:
            first, inverse = numpy.zeros(1, int), numpy.zeros(len(genomes), int)
        elif numpy.log2(sizes.astype(float)).sum() < 62:
            weights = numpy.concatenate([[1], numpy.cumprod(sizes)[:-1]])
            _, first, inverse = numpy.unique(genomes[:, used] @ weights, return_index=True, return_inverse=True)
        else:
            _, first, inverse = numpy.unique(genomes[:, used], axis=0, return_index=True, return_inverse=True)
        numbers = numpy.array([self._number(genomes[row], stack, layer) for row in first], numpy.int32)
        return numbers[inverse.reshape(-1)]

    def _number(self, genome, stack, layer):
        space = self.space
        frame = space.frame(genome)
        values = None if layer is None else space.layer_values(stack, genome, layer)
        key = (
            stack,
            layer is None,
            tuple(frame.values()),
            (
                None
                if values is None
                else tuple(
                    tuple(sorted(v[: values["experts"]])) if isinstance(v, tuple) else v
                    for n, v in values.items()
                    if n not in ("layers", "name")
                )
            ),
        )
        if key in self.known:
            return self.known[key]
        # A model with this one layer: its parts are the end of the stack and the layer.
        at = layer or 0
        blocks = space.family.blocks(stack, values or space.layer_values(stack, genome, at))
        alone = {**frame, stack: [{"blocks": blocks}]}
        if stack == "encoder" and "decoder" in space.family.stacks:
            alone["decoder"] = [{"blocks": space.family.blocks("decoder", space.layer_values("decoder", genome, 0))}]
        parts = self.batch.parts_of(Architecture.from_text(json.dumps(alone), space.name))
        # The encoder's come first.
        number = parts[int(layer is not None)] if stack == "encoder" else parts[-2 if layer is None else -1]
        problem = self.batch.problem(number)
        if problem:
            raise InputError(f"{space.name}: {stack} layer {at}: {problem}")
        self.known[key] = number
        return number
