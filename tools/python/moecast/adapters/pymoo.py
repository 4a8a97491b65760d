"""A space as a pymoo problem."""

import numpy
from pymoo.core.problem import Problem


class SpaceProblem(Problem):
    """Objectives and margins (at most 0 where a limit holds) of a moecast.search.Evaluation."""

    def __init__(self, evaluation):
        self.evaluation = evaluation
        sizes = evaluation.space.sizes
        super().__init__(
            n_var=len(sizes),
            n_obj=len(evaluation.objectives),
            n_ieq_constr=len(evaluation.limits),
            xl=numpy.zeros(len(sizes)),
            xu=sizes - 1,
            vtype=int,
        )

    def _evaluate(self, x, out, *_args, **_kwargs):
        out["F"], out["G"], _ = self.evaluation(numpy.rint(x).astype(numpy.int64))
