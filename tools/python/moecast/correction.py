"""What a few measurements of another machine say of all predictions: their times, and how sure these are."""

from __future__ import annotations

import itertools
import statistics

import numpy

from moecast._core import InputError
from moecast.columns import Columns

#: Prior spread of ln(how much slower the other machine is), of arithmetic and of bandwidth together.
_SCALE = 3.0
#: The same of arithmetic, and of the rest, by itself; and of the first step against the later ones.
_PART, _STEP = 0.7, 0.4
#: Prior of the seconds that a call of the other machine's runtime costs beyond the work: ln of median, spread.
_CALL = (numpy.log(1e-5), 1.5)
#: What evidence weighs: size and reach of the smooth rest, noise, and by which power of its time work is noisier.
_SIZES, _LENGTHS = (0.0, 0.03, 0.08, 0.15), (1.0, 3.0)
_NOISES, _POWERS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32), (0.0, 0.25, 0.5)
#: Prior of the noise: ln of median, spread. Three points must not prove that there is none.
_NOISE = (numpy.log(0.04), 1.0)
#: How much noisier or calmer than a median measurement a prediction can be.
_MOST_NOISIER = 3.0
#: Rows that belief in the spread is worth: the fewest with which Student's t has tails of a finite fourth moment.
_BELIEF = 4
#: Half a 90 % interval in standard deviations: where 95 of 100 lie below.
TAIL = statistics.NormalDist().inv_cdf(0.95)
#: No machine answers faster or slower, in seconds.
_LEAST_S, _MOST_S = 1e-9, 1e9


def components(columns: Columns) -> numpy.ndarray:
    """Seconds of arithmetic and of all else, and calls, of the later steps and of the first: [n, 6]."""
    latency, compute = _of(columns, "latency_s"), _of(columns, "compute_s")
    calls = columns.get("calls", numpy.zeros_like(latency))
    first = [columns.get(f"first_{name}", numpy.zeros_like(latency)) for name in ("compute_s", "latency_s", "calls")]
    later = [compute - first[0], (latency - compute) - (first[1] - first[0]), calls - first[2]]
    return numpy.maximum(numpy.stack([*later, first[0], first[1] - first[0], first[2]], axis=1), 0)


def features(columns: Columns) -> numpy.ndarray:
    """Where configurations differ, for a smooth rest: size of the step and shares of its parts: [n, 5]."""
    latency = _of(columns, "latency_s")
    shares = [_of(columns, name) / latency for name in ("memory_bandwidth_s", "compute_s", "routing_overhead_s")]
    sizes = [numpy.log(latency), numpy.log(_of(columns, "total_parameters"))]
    return numpy.stack([*sizes, *(5 * share for share in shares)], axis=1)


def _of(columns, name):
    if name not in columns:
        raise InputError(f"{name}: is missing among the columns")
    return columns[name]


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


def _model(x, u):
    """ln t and its derivative by the ln factors."""
    parts = x * numpy.exp(u)
    total = parts.sum(axis=1)
    return numpy.log(total), parts / total[:, None]


class _Fit:
    """The most probable factors with one size and reach of the smooth rest, and one law of noise."""

    def __init__(self, rows, size, length, noise, power):
        self.size, self.length, self.noise, self.power = size, length, noise, power
        x, phi, y, mean, precision = rows.x, rows.phi, rows.y, rows.mean, rows.precision
        covariance = self.smooth(phi, phi) + numpy.diag(self.noise_of(phi) ** 2)
        self.inverse = numpy.linalg.inv(covariance)
        u = mean.copy()
        # All work slower by as much as the median says: where Gauss-Newton starts.
        u[[0, 1, 3, 4]] += numpy.median(y - _model(x, u)[0])

        def cost(at):
            r = y - _model(x, at)[0]
            return r @ self.inverse @ r + (at - mean) @ precision @ (at - mean)

        value = cost(u)
        for _ in range(60):
            predicted, j = _model(x, u)
            gradient = j.T @ self.inverse @ (y - predicted) - precision @ (u - mean)
            step = numpy.linalg.solve(j.T @ self.inverse @ j + precision, gradient)
            share = 1.0
            while share > 1e-4 and cost(u + share * step) > value:
                share /= 2
            if share <= 1e-4:
                break
            u = u + share * step
            before, value = value, cost(u)
            if before - value < 1e-9 * max(1.0, before):
                break
        self.u = u
        predicted, self.jacobian = _model(x, u)
        self.rest = y - predicted
        hessian = self.jacobian.T @ self.inverse @ self.jacobian + precision
        self.spread = numpy.linalg.inv(hessian)
        self.evidence = -0.5 * (value + numpy.linalg.slogdet(covariance)[1] + numpy.linalg.slogdet(hessian)[1])
        self.evidence -= 0.5 * ((numpy.log(noise) - _NOISE[0]) / _NOISE[1]) ** 2
        # Each row from all others, in closed form, with the model as straight as it is at the most probable factors.
        whole = numpy.linalg.inv(covariance + self.jacobian @ rows.covariance @ self.jacobian.T)
        self.left_variance = 1 / numpy.diag(whole)
        self.left_error = whole @ (self.rest - self.jacobian @ (mean - u)) * self.left_variance

    def smooth(self, a, b):
        distance = ((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=2)
        return self.size**2 * numpy.exp(-distance / (2 * self.length**2))

    def noise_of(self, phi):
        """The first feature is ln of the time, less that of the measurements' mean."""
        shape = numpy.exp(-self.power * phi[:, 0])
        return self.noise * numpy.clip(shape, 1 / _MOST_NOISIER, _MOST_NOISIER)

    def moments(self, x, phi, cross):
        """Mean and variance of ln of the seconds. `cross`: `smooth` of the rows and the measurements."""
        predicted, j = _model(x, self.u)
        variance = self.noise_of(phi) ** 2
        if self.size == 0:
            return predicted, variance + ((j @ self.spread) * j).sum(axis=1)
        weights = cross @ self.inverse
        left = j - weights @ self.jacobian
        rest = numpy.maximum(self.size**2 - (weights * cross).sum(axis=1), 0)
        return predicted + weights @ self.rest, variance + rest + ((left @ self.spread) * left).sum(axis=1)


class Correction:
    """The other machine does the same work at other speeds: t = sum of factors times components, times a smooth rest.

    Factors have log-normal priors (machines differ by orders of magnitude, their ratios by less); the rest is a
    Gaussian process of ln t. Its size, the noise, and how much noisier small work is are not chosen but averaged over,
    weighted by evidence: few points leave all of them open, and the interval is as wide as they leave it. That small
    work is noisier moves the interval alone: what the model gets wrong there looks like noise, so that all rows count
    alike for the latency itself.

    What the model itself gets wrong shows where each measurement is predicted from all others. Intervals are those of
    Student's t, widened by these errors where they are larger than the model says, and never narrower than their own
    quantiles, upwards and downwards (below 19 measurements there are no 95 of 100: the largest counts both ways).
    """

    def __init__(self, columns: Columns, measured_s) -> None:
        measured = _seconds(columns, measured_s)
        self.count = len(measured)
        self.columns, self.measured_s = columns, measured
        if self.count == 0:
            return
        self.x = components(columns)
        self.y = numpy.log(measured)
        self.mean, self.covariance = _prior(bool((self.x[:, :3].sum(axis=1) == 0).all()))
        self.precision = numpy.linalg.inv(self.covariance)
        phi = features(columns)
        self.centre = phi.mean(axis=0)
        self.phi = phi - self.centre
        rests = [(0.0, 1.0), *itertools.product(_SIZES[1:], _LENGTHS)]
        fits = [_Fit(self, *rest, *law) for rest in rests for law in itertools.product(_NOISES, _POWERS)]
        evidence = numpy.array([fit.evidence for fit in fits])
        alike = numpy.where([fit.power == 0 for fit in fits], evidence, -numpy.inf)
        weights = numpy.stack([_most(_shares(alike)), _most(_shares(evidence))], axis=1)
        used = numpy.flatnonzero(weights.sum(axis=1))
        #: Fits, and the weights of each in the mean and in the spread.
        self.fits, self.weights = [fits[i] for i in used], weights[used]
        self.widths = self._widths(fits, alike, evidence)

    def _widths(self, fits, alike, evidence):
        """How many standard deviations the interval reaches down and up."""
        errors = numpy.array([fit.left_error for fit in fits])
        variances = numpy.array([fit.left_variance for fit in fits])
        # What the row itself said for each fit is taken out of the evidence.
        without = 0.5 * (numpy.log(variances) + errors**2 / variances)
        error = (_shares(alike[:, None] + without) * errors).sum(axis=0)
        variance = (_shares(evidence[:, None] + without) * (variances + (errors - error) ** 2)).sum(axis=0)
        z = error / numpy.maximum(numpy.sqrt(variance), self.moments(self.columns)[1])
        freedom = _BELIEF + self.count
        wider = numpy.sqrt(max(1.0, (_BELIEF + (z**2).sum()) / freedom))
        least = wider * _student(freedom)
        one_sided = int(numpy.ceil(0.95 * (self.count + 1)))
        if one_sided <= self.count:
            return max(least, numpy.sort(-z)[one_sided - 1]), max(least, numpy.sort(z)[one_sided - 1])
        two_sided = int(numpy.ceil(0.9 * (self.count + 1)))
        both = max(least, numpy.sort(abs(z))[two_sided - 1]) if two_sided <= self.count else least
        return both, both

    def moments(self, columns: Columns) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Mean and standard deviation of ln of the other machine's seconds."""
        latency = columns["latency_s"]
        if self.count == 0:
            return numpy.log(latency), numpy.full(len(latency), _SCALE)
        with numpy.errstate(invalid="ignore", divide="ignore"):
            x, phi = components(columns), features(columns) - self.centre
            crosses = {}
            mean, first, second = numpy.zeros((3, len(latency)))
            for (in_mean, in_spread), fit in zip(self.weights, self.fits):
                rest = (fit.size, fit.length)
                if fit.size > 0 and rest not in crosses:
                    crosses[rest] = fit.smooth(phi, self.phi)
                value, variance = fit.moments(x, phi, crosses.get(rest))
                mean += in_mean * value
                first += in_spread * value
                second += in_spread * (variance + value**2)
            return mean, numpy.sqrt(numpy.maximum(second - 2 * mean * first + mean**2, 0))

    def apply(self, columns: Columns) -> Columns:
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
        down, up = (TAIL, TAIL) if self.count == 0 else self.widths
        out["latency_low_s"] = out["latency_s"] * numpy.exp(-down * deviation)
        out["latency_high_s"] = out["latency_s"] * numpy.exp(up * deviation)
        return out


def _shares(evidence):
    """Weights that add up to one along the first axis."""
    weights = numpy.exp(evidence - evidence.max(axis=0))
    return weights / weights.sum(axis=0)


def _most(weights):
    """The largest weights that make up 95 of 100 together, adding up to one; the others 0."""
    order = numpy.argsort(-weights)
    kept = order[: int(numpy.searchsorted(numpy.cumsum(weights[order]), 0.95)) + 1]
    out = numpy.zeros(len(weights))
    out[kept] = weights[kept] / weights[kept].sum()
    return out


def _seconds(columns, measured_s):
    """The measured seconds as an array. Raises InputError naming the row that is none, or has no prediction."""
    try:
        measured = numpy.asarray(measured_s, float)
    except (TypeError, ValueError):
        raise InputError("measurements: hold something that is no number of seconds") from None
    predicted = columns["latency_s"]
    if measured.ndim != 1 or len(measured) != len(predicted):
        raise InputError(f"measurements: have shape {measured.shape}, expected [{len(predicted)}]")
    good = (measured >= _LEAST_S) & (measured <= _MOST_S)
    if not good.all():
        row = int(numpy.flatnonzero(~good)[0])
        raise InputError(f"measurements: row {row}: {measured[row]} s: is no latency (expected 1e-9 to 1e9 s)")
    good = numpy.isfinite(predicted) & (predicted > 0)
    if not good.all():
        row = int(numpy.flatnonzero(~good)[0])
        raise InputError(f"measurements: row {row}: there is no prediction to correct")
    return measured


def _student(freedom):
    """The quantile of 95 of 100 of Student's t with at least four degrees: Cornish and Fisher, off by 0.1 %."""
    z = TAIL
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))
