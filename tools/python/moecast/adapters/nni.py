"""A latency filter as NNI's `model_filter` takes it."""


class LatencyFilter:
    """True for architectures whose latency keeps a limit with a confidence. `threshold_s`: seconds.

    Takes whatever `Predictor.predict_batch` takes: an Architecture, or a genome where `times` is a SpaceTimes.
    """

    def __init__(self, threshold_s, times, confidence=0.95):
        from moecast.search.constraints import Constraint

        self.times = times
        self.constraint = Constraint("latency", threshold_s, confidence=confidence)

    def __call__(self, genome):
        costs = self.times.predict(genome)
        columns = {"latency": costs["latency_s"], "latency_high": costs["latency_high_s"]}
        return bool(self.constraint.margins(columns)[0] <= 0)
