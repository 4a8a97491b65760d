"""A space as an Optuna objective with constraints."""

import numpy


class OptunaObjective:
    """`study.optimize(objective, n)`, with `sampler(constraints_func=objective.constraints)`.

    Values are to be minimised (maximised metrics are negated), so every direction of the study is "minimize".
    """

    def __init__(self, evaluation):
        self.evaluation = evaluation

    def __call__(self, trial):
        space = self.evaluation.space
        genome = numpy.array(
            [trial.suggest_int(name, 0, int(size) - 1) for name, size in zip(space.genes, space.sizes)]
        )
        scores, margins, _ = self.evaluation(genome[None, :])
        trial.set_user_attr("margins", [float(m) for m in margins[0]])
        return tuple(float(s) for s in scores[0])

    @staticmethod
    def constraints(trial):
        return trial.user_attrs["margins"]
