"""Search for architectures whose predicted cost keeps limits and whose objectives are best."""

import sys
import time

import numpy

from moecast._core import InputError, UsageError
from moecast.search.arguments import checked_workload, predictor_of, ratio, whole
from moecast.search.constraints import BUILT_IN, Constraint, read_constraints
from moecast.search.evaluation import Evaluation
from moecast.search.journal import Journal, Memory
from moecast.search.methods import METHODS, make_algorithm
from moecast.search.metrics import Objective, read_metrics, read_objectives
from moecast.search.remeasurement import Remeasured, remeasure
from moecast.search.result import SearchResult, hypervolume, non_dominated
from moecast.spaces import SpaceTimes, load_space

__all__ = [
    "Constraint",
    "Evaluation",
    "Objective",
    "Remeasured",
    "SearchResult",
    "hypervolume",
    "non_dominated",
    "remeasure",
    "search",
]


def search(
    space,
    hw,
    *,
    objectives=None,
    constraints=(),
    confidence=0.95,
    metrics=None,
    method=None,
    workload=None,
    generations=30,
    population=125,
    parents=25,
    mutations=50,
    crossovers=50,
    mutation_probability=0.3,
    patience=None,
    seed=1,
    initial=None,
    executor=None,
    time_limit_s=None,
    resume=None,
    progress=None,
):
    """Searches a space.

    Parameters
    ----------
    space: a Space, a name of `spaces.space_names()`, a JSON file or a dict.
    hw: a Predictor, a name of `list_hw()`, or a folder.
    objectives: names with directions, e.g. ["accuracy", "latency:min"]; None = the space's that are known. Built in:
        latency, flops, memory, size, active_parameters.
    constraints: {"latency": "50ms", "flops": "100G"} or ["latency<50ms", "accuracy>0.8"].
    confidence: how sure it must be that a measured latency keeps its limit; above 0.5 the interval counts.
    metrics: the user's, by name: a callable that takes a dict of genes, "FILE.csv:COLUMN", "FILE.json" (linear), or a
        dict from genomes to values.
    method: evolution (one objective), nsga2, random, exhaustive; None = what fits.
    patience: stops after so many generations without a better objective (or hypervolume).
    initial: genomes [n, genes] that are evaluated beside those of the method.
    executor: any concurrent.futures.Executor for the callbacks. time_limit_s: of one call, from when it begins.
    resume: file of what callbacks answered; a restarted search with the same arguments continues from it and calls
        again what failed. Or a journal.Memory that several searches share.
    progress: called with (generation, generations, best) after each one; True writes to stderr.

    Returns a SearchResult; equal arguments and seeds give equal ones. Raises UsageError, InputError.
    """
    space = load_space(space)
    predictor = predictor_of(hw)
    metrics = read_metrics(metrics, space)
    known = (*BUILT_IN, *metrics)
    if objectives is None:
        objectives = [o for o in space.objectives if o in known] or ["latency"]
    objectives = read_objectives(objectives, known)
    constraints = read_constraints(constraints, confidence, known)
    method = _method(method, objectives, space)
    generations, population = whole("generations", generations, 1), whole("population", population, 1)
    parents, seed = whole("parents", parents, 1), whole("seed", seed)
    mutations, crossovers = whole("mutations", mutations), whole("crossovers", crossovers)
    if mutations + crossovers < 1:
        raise UsageError("mutations, crossovers: both are 0")
    mutation_probability = ratio("mutation_probability", mutation_probability)
    patience = None if patience is None else whole("patience", patience, 1)
    if progress not in (None, False, True) and not callable(progress):
        raise UsageError(f"progress: {progress!r} can not be called")
    initial = space.checked(initial) if initial is not None and numpy.size(initial) else []
    times = SpaceTimes(space, predictor, checked_workload(workload))
    if resume is None or isinstance(resume, Memory):
        journal = resume or Memory()
    else:
        journal = Journal(resume, _header(space, predictor, objectives, constraints, method, seed))
    evaluation = Evaluation(space, times, metrics, objectives, constraints, journal, executor, time_limit_s)
    run = _Run(evaluation, generations, patience, _show if progress is True else progress)
    start = time.perf_counter()
    try:
        if len(initial):
            run.add(initial)
        if method == "exhaustive":
            run.list(space.all(), population)
        elif method == "random":
            run.draw(space, population, seed)
        else:
            run.evolve(
                *make_algorithm(
                    method, space, evaluation, population, parents, mutations, crossovers, mutation_probability
                ),
                seed,
            )
    except KeyboardInterrupt:
        run.stopped = "interrupted"
        if not run.scores:
            raise
    finally:
        evaluation.close()
        journal.close()
    return run.result(time.perf_counter() - start)


def _method(method, objectives, space):
    if method is None:
        if space.size() <= 2000:
            return "exhaustive"
        return "evolution" if len(objectives) == 1 else "nsga2"
    if method not in METHODS:
        raise UsageError(f"method: {method!r} is not known (write one of {', '.join(METHODS)})")
    return method if space.genes else "exhaustive"  # one architecture leaves nothing to optimise


def _header(space, predictor, objectives, constraints, method, seed):
    return {
        "moecast_search": 1,
        "space": space.name,
        "genes": space.fingerprint,
        "hw": getattr(predictor, "hw", "own"),
        "objectives": [str(o) for o in objectives],
        "constraints": [str(c) for c in constraints],
        "method": method,
        "seed": seed,
    }


def _show(generation, generations, best):
    print(
        f"\rgeneration {generation}/{generations}  best {best:.6g}",
        end="" if generation < generations else "\n",
        file=sys.stderr,
        flush=True,
    )


class _Run:
    """Collects what is evaluated, generation by generation."""

    def __init__(self, evaluation, generations, patience, progress):
        self.evaluation = evaluation
        self.generations = generations
        self.patience = patience
        self.progress = progress
        self.genomes, self.scores, self.margins, self.columns = [], [], [], []
        self.history = []
        self.stopped = "generations"
        self._best = None
        self._waited = 0

    def add(self, genomes):
        scores, margins, columns = self.evaluation(genomes)
        self.genomes.append(numpy.asarray(genomes, numpy.int64))
        self.scores.append(scores)
        self.margins.append(margins)
        self.columns.append(columns)
        return scores, margins

    def end_generation(self):
        """Whether to go on."""
        scores, margins = numpy.concatenate(self.scores), numpy.concatenate(self.margins)
        feasible = scores[(margins <= 0).all(axis=1)]
        signs = numpy.array([o.sign for o in self.evaluation.objectives])
        best = feasible.min(axis=0) if len(feasible) else None
        self.history.append(None if best is None else [float(v) for v in best * signs])
        if self.progress:
            self.progress(
                len(self.history), self.generations, float("nan") if best is None else float(best[0] * signs[0])
            )
        value = None if best is None else self._value(feasible)
        if value is not None and (self._best is None or value > self._best):
            self._best, self._waited = value, 0
        else:
            self._waited += 1
        if self.patience is not None and self._waited >= self.patience:
            self.stopped = "patience"
            return False
        return len(self.history) < self.generations

    def _value(self, feasible):
        """What patience watches: the objective, or the hypervolume against the worst point of the first generation."""
        if feasible.shape[1] == 1:
            return -float(feasible.min())
        if self.patience is None:
            return 0.0
        if not hasattr(self, "_reference"):
            self._reference = feasible.max(axis=0)
        return hypervolume(feasible[non_dominated(feasible)], self._reference)

    def list(self, genomes, block):
        self.generations = -(-len(genomes) // max(block, 4096))
        for part in numpy.array_split(genomes, self.generations):
            self.add(part)
            if not self.end_generation():
                break
        self.stopped = "exhausted" if len(self.history) == self.generations else self.stopped

    def draw(self, space, population, seed):
        generator = numpy.random.default_rng(seed)
        while True:
            self.add(space.random(population, generator))
            if not self.end_generation():
                return

    def evolve(self, algorithm, problem, seed):
        from pymoo.core.evaluator import Evaluator
        from pymoo.problems.static import StaticProblem

        algorithm.setup(problem, termination=("n_gen", self.generations + 1), seed=seed, verbose=False)
        while algorithm.has_next():
            infills = algorithm.ask()
            if infills is None or len(infills) == 0:
                self.stopped = "exhausted"
                return
            scores, margins = self.add(infills.get("X"))
            Evaluator().eval(StaticProblem(problem, F=scores, G=margins), infills)
            algorithm.tell(infills=infills)
            if not self.end_generation():
                return

    def result(self, seconds):
        evaluation = self.evaluation
        if not self.genomes:
            raise InputError(f"{evaluation.space.name}: nothing was evaluated")
        genomes = numpy.concatenate(self.genomes)
        _, rows = numpy.unique(genomes, axis=0, return_index=True)
        rows = numpy.sort(rows)
        columns = {name: numpy.concatenate([c[name] for c in self.columns])[rows] for name in self.columns[0]}
        return SearchResult(
            space=evaluation.space,
            objectives=evaluation.objectives,
            constraints=evaluation.constraints,
            genomes=genomes[rows],
            columns=columns,
            scores=numpy.concatenate(self.scores)[rows],
            margins=numpy.concatenate(self.margins)[rows],
            limits=evaluation.limits,
            generations=self.history,
            stopped=self.stopped,
            evaluated=evaluation.asked,
            failed=evaluation.failed,
            seconds=seconds,
        )
