"""Latency of genomes in batches: layers that are alike are costed once."""

import json
import threading

import numpy

from moecast._core import Architecture, InputError, UsageError
from moecast.columns import FIRST, SUMMED, add_columns
from moecast.workload import Request, Workload


#: The part of a layer that no model had yet.
_NOT_ASKED = -2


class SpaceTimes:
    """Latency, memory, parameters and FLOPs of the genomes of a space on a machine.

    `workload`: a Workload or a Request. Answers are what `Predictor` says of `space.architecture(genome)`, within 1 %
    on a CPU, the same where each new genome is predicted by itself (Predictor.one_by_one). Threads may share it; it can
    be pickled.
    """

    def __init__(self, space, predictor, workload=None):
        self.space = space
        self.predictor = predictor
        self.workload = workload or workload_of(space)
        self._layers = _Layers(space)
        self._steps = [(times, _Step(space, predictor, step, self._layers)) for times, step in self.workload.steps()]
        self._lock = threading.Lock()  #: of the numbers of layers and parts

    def __reduce__(self):
        return SpaceTimes, (self.space, self.predictor, self.workload)

    def predict(self, genomes):
        """Columns (see Predictor.predict_batch) of an int array of shape [n, genes]."""
        genomes = self.space.checked(genomes)
        if self.predictor.one_by_one:
            answers = [step.each(genomes) for _, step in self._steps]
        else:
            with self._lock:
                numbers = self._layers.numbers(genomes)
                tables = [step.parts_of(numbers) for _, step in self._steps]
            answers = [step.batch.predict(parts) for (_, step), parts in zip(self._steps, tables)]
        columns = {}
        for (times, _), answer in zip(self._steps, answers):
            columns = add_columns(columns, answer, times)
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
        passes = numpy.where(outputs, top_k, 1)
        for name in (*SUMMED, *(f"first_{name}" for name in FIRST)):
            if name in columns:
                columns[name] = columns[name] * passes
        # Merging reads k sets of weights and writes one.
        element = numpy.array([_weight_bytes(dtype) for dtype in self.space.values("dtype", genomes)])
        columns["merge_bytes"] = numpy.where(outputs, 0.0, (top_k + 1) * element * columns["total_parameters"])
        columns["memory_bytes"] = columns["memory_bytes"] + (experts - 1) * element * columns["total_parameters"]
        columns["total_parameters"] = columns["total_parameters"] * experts
        return columns

    def one(self, genome):
        """(latency, low, high) of one genome in seconds."""
        columns = self.predict(genome)
        return tuple(float(columns[name][0]) for name in ("latency_s", "latency_low_s", "latency_high_s"))


def _weight_bytes(dtype):
    """Bytes of a weight. Raises InputError for formats whose sets of weights nobody mixes."""
    if dtype not in ("fp32", "bf16", "fp16"):
        raise InputError(f"dtype: sets of weights in {dtype} cannot be mixed (write fp32, bf16 or fp16)")
    return 4.0 if dtype == "fp32" else 2.0


def workload_of(space):
    """The workload that the description of a space names, else a decode step."""
    fields = dict(space.workload)
    kind = fields.pop("kind", "step")
    try:
        return Request(**fields) if kind == "request" else Workload(**fields)
    except (TypeError, UsageError) as error:
        raise InputError(f"{space.name}: /workload: {error}") from None


class _Step:
    """One step of a machine: the parts that layers are to it."""

    def __init__(self, space, predictor, step, layers):
        self.space = space
        self.predictor = predictor = getattr(predictor, "base", predictor)  # corrections apply to the sum of all steps
        self.step = step
        self.layers = layers
        self.batch = None if predictor.one_by_one else predictor.batch(step)
        self.parts = numpy.full(1, -1, numpy.int32)  #: of each layer number; the last one stands for no layer
        self.blocks = {}  #: parts of single blocks

    def each(self, genomes):
        unique, inverse = numpy.unique(genomes, axis=0, return_inverse=True)
        architectures = [self.space.architecture(g) for g in unique]
        columns = self.predictor.predict_batch(architectures, self.step)
        return {name: values[inverse.reshape(-1)] for name, values in columns.items()}

    def parts_of(self, numbers):
        """Numbers of the parts of models of these numbers of layers: int32 of the same shape."""
        fresh = len(self.layers.models) + 1 - len(self.parts)
        if fresh > 0:
            self.parts = numpy.concatenate([self.parts[:-1], numpy.full(fresh, _NOT_ASKED), [-1]]).astype(numpy.int32)
        table = self.parts[numbers]
        unknown = table == _NOT_ASKED
        if unknown.any():
            for number in numpy.unique(numbers[unknown]):
                self.parts[number] = self._part(*self.layers.models[number])
            table = self.parts[numbers]
        return numpy.ascontiguousarray(table)

    def _part(self, frame, stack, blocks):
        """The part of a layer of these blocks, or of the end of a stack; equal blocks are costed once."""
        if blocks is None:
            return self._block(frame, stack, None)
        if not blocks:
            return -1
        return self.batch.stacked([self._block(frame, stack, block) for block in blocks])

    def _block(self, frame, stack, block):
        key = (frame, stack, block)
        if key not in self.blocks:
            part = self.blocks[key] = self._costed(frame, stack, block)
            problem = self.batch.problem(part)
            if problem:
                raise InputError(f"{self.space.name}: a layer of the {stack}: {problem}")
        return self.blocks[key]

    def _costed(self, frame, stack, block):
        # Two layers, for a model of one lone block is asked otherwise; the encoder's parts come first.
        layer = f'{{"blocks":[{block or self.layers.any_block(stack)}]}}'
        stacks = {stack: f"[{layer},{layer}]"}
        if stack == "encoder" and "decoder" in self.space.family.stacks:
            stacks["decoder"] = f'[{{"blocks":[{self.layers.any_block("decoder")}]}}]'
        text = frame[:-1] + "".join(f',"{name}":{layers}' for name, layers in stacks.items()) + "}"
        parts = self.batch.parts_of(Architecture.from_text(text, self.space.name))
        if stack == "encoder":
            return parts[0 if block is None else 1]
        return parts[-3 if block is None else -1]


class _Layers:
    """Numbers of the layers that a space's models are made of; equal layers have equal numbers."""

    def __init__(self, space):
        self.space = space
        self.models = []  #: (frame, stack, blocks as JSON; None: the end of the stack)
        self.examples = {}  #: some block of each stack
        self.known = {}  #: numbers by the values that decide a layer's cost
        self.codes = {}  #: the same by the genes of a layer at its place

    def numbers(self, genomes):
        """[n, layers and ends] of layer numbers, -1 where a model has no layer."""
        space = self.space
        columns = []
        for stack in space.family.stacks:
            frame = [
                c
                for f in space.fields.values()
                if "." not in f.name
                or (f.name.endswith(".hidden") and (stack == "decoder" or f.name.startswith(stack)))
                for c in f.columns(0)
            ]
            ends = [
                c
                for f in space.fields.values()
                if "." not in f.name or f.name.endswith(".hidden")
                for c in f.columns(0)
            ]
            columns.append(self._numbers(genomes, stack, None, ends))
            count = space.values(f"{stack}.layers", genomes)
            for layer in range(space.layers[stack]):
                own = [
                    c
                    for f in space.fields.values()
                    if f.name.startswith(f"{stack}.") and not f.name.endswith((".hidden", ".layers"))
                    for c in f.columns(layer)
                ]
                numbers = numpy.full(len(genomes), -1, numpy.int64)
                there = count > layer
                if there.any():
                    numbers[there] = self._numbers(genomes[there], stack, layer, frame + own)
                columns.append(numbers)
        return numpy.stack(columns, axis=1)

    def _numbers(self, genomes, stack, layer, used):
        """Numbers of one layer of all genomes, which differ in the genes `used` only."""
        sizes = self.space.sizes[used]
        genes = genomes[:, used] if layer is None else self._canonical(genomes, stack, layer, used)
        if len(used) == 0:
            codes = numpy.zeros(len(genomes), numpy.int64)
        elif numpy.log2(sizes.astype(float)).sum() < 62:
            codes = genes @ numpy.concatenate([[1], numpy.cumprod(sizes)[:-1]])
        else:
            codes = None
        if codes is None:
            _, first, inverse = numpy.unique(genes, axis=0, return_index=True, return_inverse=True)
            numbers = [self._number(genomes[row], stack, layer) for row in first]
        else:
            unique, first, inverse = numpy.unique(codes, return_index=True, return_inverse=True)
            known = self.codes.setdefault((stack, layer), {})
            numbers = []
            for code, row in zip(unique.tolist(), first.tolist()):
                if code not in known:
                    known[code] = self._number(genomes[row], stack, layer)
                numbers.append(known[code])
        return numpy.array(numbers, numpy.int64)[inverse.reshape(-1)]

    def _canonical(self, genomes, stack, layer, used):
        """The genes `used`, those without an effect set to their first choice, those of single experts in order."""
        genes = genomes[:, used].copy()
        experts = self.space.fields.get(f"{stack}.experts")
        own = self.space.fields.get(f"{stack}.expert_width")
        if experts is None or own is None or experts.scope == "fixed":
            return genes
        place = {column: i for i, column in enumerate(used)}
        count = numpy.array(experts.choices)[genomes[:, experts.columns(layer)[0]]]
        columns = [place[c] for c in own.columns(layer)]
        if own.scope == "expert":
            widths = genes[:, columns]
            absent = (numpy.arange(len(columns)) >= count[:, None]) | (count[:, None] <= 1)
            widths[absent] = len(own.choices)
            widths.sort(axis=1)
            widths[widths == len(own.choices)] = 0
            genes[:, columns] = widths
        dense = self.space.fields[f"{stack}.width"]
        if own.scope != "fixed" and dense.scope != "fixed":
            genes[:, [place[c] for c in dense.columns(layer)]] *= (count <= 1)[:, None]
        return genes

    def _number(self, genome, stack, layer):
        space = self.space
        frame = space.frame(genome)
        if stack == "encoder" and layer is not None and frame.get("encoder_hidden"):
            frame["hidden"] = frame["encoder_hidden"]  # no layer of an encoder depends on the decoder's width
        values = None if layer is None else space.layer_values(stack, genome, layer)
        key = (stack, tuple(frame.values()), None if values is None else self._key(values))
        if key not in self.known:
            blocks = None if values is None else [json.dumps(b) for b in space.family.blocks(stack, values)]
            self.models.append((json.dumps(frame), stack, blocks))
            self.known[key] = len(self.models) - 1
        return self.known[key]

    def any_block(self, stack):
        """Some block of the stack, as JSON."""
        if stack not in self.examples:
            genome = numpy.zeros(len(self.space.sizes), numpy.int64)
            values = self.space.layer_values(stack, genome, 0)
            blocks = self.space.family.blocks(stack, values) or [{"type": "ffn", "ffn": {"width": 1}}]
            self.examples[stack] = json.dumps(blocks[-1])
        return self.examples[stack]

    @staticmethod
    def _key(values):
        """Values of a layer that decide its cost."""
        return tuple(
            tuple(sorted(v[: values["experts"]])) if isinstance(v, tuple) else v
            for name, v in values.items()
            if name != "layers"
        )
