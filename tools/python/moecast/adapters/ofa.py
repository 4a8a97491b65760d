"""Once-for-All's efficiency predictor interface."""


class EfficiencyPredictor:
    """`get_efficiency(sample)`: milliseconds of a dict of genes, as OFA's EvolutionFinder asks."""

    def __init__(self, times):
        self.times = times

    def get_efficiency(self, sample):
        return float(1e3 * self.times.predict(self.times.space.encode(sample))["latency_s"][0])
