"""Search methods. The optimisers are pymoo's; what is here are the operators of choices and AutoMoE's generation."""

import numpy

from moecast._core import DeviceError, UsageError

METHODS = ("evolution", "nsga2", "random", "exhaustive")


def pymoo_parts(space, mutation_probability):
    """pymoo's problem and operators for genomes of a space."""
    try:
        from pymoo.core.mutation import Mutation
        from pymoo.core.problem import Problem
        from pymoo.core.repair import Repair
        from pymoo.core.sampling import Sampling
    except ImportError:
        raise DeviceError("search: needs pymoo (pip install 'moecast[search]')") from None

    class Rules(Repair):
        def _do(self, problem, X, **kwargs):
            return space.repaired(numpy.asarray(X, numpy.int64))

    class Choices(Sampling):
        def _do(self, problem, n_samples, random_state=None, **kwargs):
            return space.random(n_samples, random_state)

    class Redraw(Mutation):
        """Each gene is drawn anew with a probability (HAT and AutoMoE: 0.3)."""

        def _do(self, problem, X, random_state=None, **kwargs):
            fresh = random_state.integers(0, space.sizes, X.shape)
            return numpy.where(random_state.random(X.shape) < mutation_probability, fresh, X)

    def problem(objectives, constraints):
        return Problem(
            n_var=len(space.sizes), n_obj=objectives, n_ieq_constr=constraints, xl=0, xu=space.sizes - 1, vtype=int
        )

    return problem, Rules, Choices, Redraw


def make_algorithm(method, space, evaluation, population, parents, mutations, crossovers, probability):
    """A pymoo algorithm with ask and tell, and its problem."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.algorithms.soo.nonconvex.ga import GA
    from pymoo.core.infill import InfillCriterion
    from pymoo.core.population import Population
    from pymoo.operators.crossover.ux import UniformCrossover

    make_problem, Rules, Choices, Redraw = pymoo_parts(space, probability)
    problem = make_problem(len(evaluation.objectives), len(evaluation.limits))

    def feasible(genomes):
        return (evaluation.margins(genomes) <= 0).all(axis=1)

    class Sampled(Choices):
        """Only feasible ones where they can be found (AutoMoE rejects until the constraint holds)."""

        def _do(self, problem, n_samples, random_state=None, **kwargs):
            kept = numpy.empty((0, len(space.sizes)), numpy.int64)
            drawn = kept
            for _ in range(50):
                drawn = space.random(n_samples, random_state)
                kept = numpy.concatenate([kept, drawn[feasible(drawn)]])
                if len(kept) >= n_samples:
                    return kept[:n_samples]
            return numpy.concatenate([kept, drawn])[:n_samples]

    class Generation(InfillCriterion):
        """Mutations and crossovers of the parents, half and half; those that break a constraint are drawn again."""

        def _do(self, problem, pop, n_offsprings, random_state=None, **kwargs):
            best = pop[numpy.lexsort([pop.get("F")[:, 0], pop.get("CV")[:, 0]])[:parents]]
            X = best.get("X").astype(numpy.int64)
            total = mutations + crossovers
            wanted = {"mutation": round(n_offsprings * mutations / total)}
            wanted["crossover"] = n_offsprings - wanted["mutation"]
            made = []
            for kind, count in wanted.items():
                kept = children = numpy.empty((0, X.shape[1]), numpy.int64)
                for _ in range(20):
                    if len(kept) >= count:
                        break
                    children = self._children(kind, X, count, random_state)
                    kept = numpy.concatenate([kept, children[feasible(children)]])
                # Where too few keep the constraints, the least bad lead the way.
                made.append(numpy.concatenate([kept, children])[:count])
            return Population.new(X=numpy.concatenate(made))

        @staticmethod
        def _children(kind, X, count, random_state):
            first = X[random_state.integers(0, len(X), count)]
            if kind == "mutation":
                redrawn = random_state.random(first.shape) < probability
                return space.repaired(numpy.where(redrawn, random_state.integers(0, space.sizes, first.shape), first))
            second = X[random_state.integers(0, len(X), count)]
            return space.repaired(numpy.where(random_state.random(first.shape) < 0.5, first, second))

    if method == "evolution":
        if len(evaluation.objectives) != 1:
            raise UsageError("method: evolution has one objective, nsga2 takes several")
        sampled = Sampled()
        return (
            GA(
                pop_size=population,
                sampling=sampled,
                repair=Rules(),
                n_offsprings=mutations + crossovers,
                mating=Generation(repair=Rules(), n_max_iterations=1),
                eliminate_duplicates=False,
            ),
            problem,
        )
    return (
        NSGA2(pop_size=population, sampling=Choices(), crossover=UniformCrossover(), mutation=Redraw(), repair=Rules()),
        problem,
    )
