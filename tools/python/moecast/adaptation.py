"""Few-shot calibration: predictions of one machine, corrected by a few measured configurations of another."""

import itertools

import numpy

from moecast._core import InputError

_NINETY = 1.6448536269514722
#: Prior spread of ln(how much slower the other machine is), of arithmetic and of bandwidth together.
_SCALE = 3.0
#: The same of arithmetic, and of the rest, by itself; and of the first step against the later ones.
_PART, _STEP = 0.7, 0.4
#: Prior of the seconds that a call of the other machine's runtime costs beyond the work: ln of median, spread.
_CALL = (numpy.log(1e-5), 1.5)


def components(columns):
    """Seconds of arithmetic and of all else, and calls, of the later steps and of the first: [n, 6]."""
    latency, compute = columns["latency_s"], columns["compute_s"]
    calls = columns.get("calls", numpy.zeros_like(latency))
    first = [columns.get(f"first_{name}", numpy.zeros_like(latency)) for name in ("compute_s", "latency_s", "calls")]
    later = [compute - first[0], (latency - compute) - (first[1] - first[0]), calls - first[2]]
    return numpy.maximum(numpy.stack([*later, first[0], first[1] - first[0], first[2]], axis=1), 0)


def _prior(single):
    """Mean and covariance of ln of the factors of the components. `single`: there are no later steps."""
    mean = numpy.array([0, 0, _CALL[0]] * 2)
    covariance = numpy.zeros((6, 6))
    work = numpy.array([1, 1, 0] * 2, bool)
    covariance[numpy.ix_(work, work)] += _SCALE**2
    for part, spread in ((0, _PART), (1, _PART), (2, _CALL[1])):
        pair = [part, part + 3]
        covariance[numpy.ix_(pair, pair)] += spread**2
    covariance += numpy.diag([0.0] * 3 + [0.0 if single else _STEP**2] * 3)
    return mean, covariance + 1e-9 * numpy.eye(6)


def features(columns):
    """Where configurations differ, for a smooth rest: size of the step and shares of its parts."""
    latency = columns["latency_s"]
    shares = [columns[name] / latency for name in ("memory_bandwidth_s", "compute_s", "routing_overhead_s")]
    return numpy.stack([numpy.log(latency), numpy.log(columns["total_parameters"]), *(5 * s for s in shares)], axis=1)


class Correction:
    """The other machine does the same work at other speeds: t = sum of factors times components, times a smooth rest.

    Factors have log-normal priors (machines differ by orders of magnitude, their ratios by less); the rest is a
    Gaussian process of ln t. Its size and the noise are chosen by evidence, so that few points give little but a
    common factor and its uncertainty. Laplace approximation around the most probable factors.
    """

    def __init__(self, columns, measured_s):
        measured = numpy.asarray(measured_s, float)
        if measured.ndim != 1 or len(measured) != len(columns["latency_s"]):
            raise InputError(f"measurements: have shape {measured.shape}, expected [{len(columns['latency_s'])}]")
        for values, problem in (
            (measured, "is no latency"),
            (columns["latency_s"], "there is no prediction to correct"),
        ):
            good = numpy.isfinite(values) & (values > 0)
            if not good.all():
                row = int(numpy.flatnonzero(~good)[0])
                raise InputError(f"measurements: row {row}: {values[row]} s: {problem}")
        self.count = len(measured)
        if self.count == 0:
            return
        self.x = components(columns)
        self.mean, self.covariance = _prior(bool((self.x[:, :3].sum(axis=1) == 0).all()))
        self.precision = numpy.linalg.inv(self.covariance)
        phi = features(columns)
        self.centre = phi.mean(axis=0)
        self.phi = phi - self.centre
        self.y = numpy.log(measured)
        grid = itertools.product((0.0, 0.03, 0.08, 0.15), (1.0, 3.0), (0.01, 0.02, 0.04, 0.08, 0.16))
        fits = [self._fit(hyper) for hyper in grid if hyper[0] > 0 or hyper[1] == 1.0]
        _, self.hyper, self.u, self.inverse, self.spread, self.jacobian, self.rest = max(fits, key=lambda fit: fit[0])

    def _smooth(self, a, b, hyper):
        size, length, _ = hyper
        distance = ((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=2)
        return size**2 * numpy.exp(-distance / (2 * length**2))

    @staticmethod
    def _model(x, u):
        """ln t and its derivative by the ln factors."""
        parts = x * numpy.exp(u)
        total = parts.sum(axis=1)
        return numpy.log(total), parts / total[:, None]

    def _fit(self, hyper):
        covariance = self._smooth(self.phi, self.phi, hyper) + hyper[2] ** 2 * numpy.eye(self.count)
        inverse = numpy.linalg.inv(covariance)
        u = self.mean.copy()
        # All work slower by as much as the median says: where Gauss-Newton starts.
        u[[0, 1, 3, 4]] += numpy.median(self.y - self._model(self.x, u)[0])

        def cost(at):
            r = self.y - self._model(self.x, at)[0]
            return r @ inverse @ r + (at - self.mean) @ self.precision @ (at - self.mean)

        value = cost(u)
        for _ in range(60):
            predicted, j = self._model(self.x, u)
            gradient = j.T @ inverse @ (self.y - predicted) - self.precision @ (u - self.mean)
            step = numpy.linalg.solve(j.T @ inverse @ j + self.precision, gradient)
            length = 1.0
            while length > 1e-4 and cost(u + length * step) > value:
                length /= 2
            if length <= 1e-4:
                break
            u = u + length * step
            before, value = value, cost(u)
            if before - value < 1e-9 * max(1.0, before):
                break
        predicted, j = self._model(self.x, u)
        hessian = j.T @ inverse @ j + self.precision
        evidence = -0.5 * (value + numpy.linalg.slogdet(covariance)[1] + numpy.linalg.slogdet(hessian)[1])
        # Three points must not prove that there is no noise.
        evidence -= 0.5 * numpy.log(hyper[2] / 0.04) ** 2
        return evidence, hyper, u, inverse, numpy.linalg.inv(hessian), j, self.y - predicted

    def moments(self, columns):
        """Mean and standard deviation of ln of the other machine's seconds."""
        latency = columns["latency_s"]
        if self.count == 0:
            return numpy.log(latency), numpy.full(len(latency), _SCALE)
        with numpy.errstate(invalid="ignore", divide="ignore"):
            predicted, j = self._model(components(columns), self.u)
            cross = self._smooth(features(columns) - self.centre, self.phi, self.hyper)
            weights = cross @ self.inverse
            left = j - weights @ self.jacobian
            variance = (
                self.hyper[2] ** 2
                + self.hyper[0] ** 2
                - numpy.einsum("ij,ij->i", weights, cross)
                + numpy.einsum("ij,jk,ik->i", left, self.spread, left)
            )
            return predicted + weights @ self.rest, numpy.sqrt(numpy.maximum(variance, self.hyper[2] ** 2))

    def apply(self, columns):
        """The columns of the other machine: times scaled, intervals of the correction."""
        mean, deviation = self.moments(columns)
        out = dict(columns)
        factor = numpy.exp(mean) / columns["latency_s"]
        for name in (
            "latency_s",
            "memory_bandwidth_s",
            "compute_s",
            "routing_overhead_s",
            "first_latency_s",
            "first_compute_s",
        ):
            if name in out:
                out[name] = columns[name] * factor
        out["latency_low_s"] = out["latency_s"] * numpy.exp(-_NINETY * deviation)
        out["latency_high_s"] = out["latency_s"] * numpy.exp(_NINETY * deviation)
        return out


class AdaptedPredictor:
    """A predictor whose answers a Correction moves. What a search, a SpaceTimes or a batch asks goes through it."""

    def __init__(self, base, correction):
        self.base = base
        self.correction = correction
        self.hw = f"{base.hw} adapted"

    gpu = property(lambda self: self.base.gpu)

    def batch(self, step):
        return self.base.batch(step)

    def corrected(self, columns):
        return self.correction.apply(columns)

    def predict_batch(self, architectures, workload=None, **fields):
        """Columns of a list of architectures, corrected."""
        return self.corrected(self.base.predict_batch(architectures, workload, **fields))


def adapt(base, measurements, workload=None, *, times=None):
    """A predictor of a machine that was never profiled, from a few measured configurations.

    `base`: the Predictor of the most similar machine that was. `measurements`: pairs of an Architecture and measured
    seconds of `workload`; or of a genome and seconds, where `times` is the SpaceTimes of the space on `base`. None at
    all is allowed: then intervals span orders of magnitude.
    """
    pairs = list(measurements)
    configurations = [pair[0] for pair in pairs]
    measured = [pair[1] for pair in pairs]
    if not pairs:
        columns = {"latency_s": numpy.empty(0)}
    elif times is not None:
        columns = times.predict(numpy.array(configurations, numpy.int64))
    else:
        columns = base.predict_batch(configurations, workload)
    return AdaptedPredictor(base, Correction(columns, measured))
