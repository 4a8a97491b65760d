"""A space as a DEAP evaluation function."""

import numpy


def deap_evaluate(evaluation, penalty=1e6):
    """`toolbox.register("evaluate", deap_evaluate(evaluation))`: a tuple of values to be minimised.

    An individual that breaks a constraint gets `penalty` times its margin added to every value.
    """

    def evaluate(individual):
        scores, margins, _ = evaluation(numpy.array(individual, numpy.int64)[None, :])
        broken = float(numpy.maximum(margins[0], 0).sum())
        return tuple(float(s) + penalty * broken for s in scores[0])

    return evaluate
