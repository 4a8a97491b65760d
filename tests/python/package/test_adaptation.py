"""Few-shot adaptation and active collection."""

import csv
import gzip
import pathlib

import moecast
import numpy
import pytest
from moecast.adaptation import Correction, adapt
from moecast.spaces import SpaceTimes, load_space

TABLES = pathlib.Path(__file__).parents[3].parent / "shared" / "measurements" / "nas"


def other_machine(columns, seed):
    """A made-up machine: 3 x slower, worse at bandwidth, 3 % noise."""
    g = numpy.random.default_rng(seed)
    share = columns["memory_bandwidth_s"] / columns["latency_s"]
    return columns["latency_s"] * 3 * numpy.exp(0.3 * share + 0.03 * g.standard_normal(len(share)))


@pytest.fixture(scope="module")
def times(predictor):
    return SpaceTimes(load_space("llm-moe"), predictor)


@pytest.mark.parametrize("shots, most", [(3, 0.15), (10, 0.10), (20, 0.07), (100, 0.05)])
def test_a_machine_that_differs(times, shots, most):
    genomes = times.space.random(shots + 300, shots)
    truth = other_machine(times.predict(genomes), 1)
    adapted = adapt(times.predictor, zip(genomes[:shots], truth[:shots]), times=times)
    answer = SpaceTimes(times.space, adapted, times.workload).predict(genomes[shots:])
    error = numpy.abs(answer["latency_s"] / truth[shots:] - 1)
    covered = (answer["latency_low_s"] <= truth[shots:]) & (truth[shots:] <= answer["latency_high_s"])
    assert error.mean() < most and covered.mean() > 0.75


def test_without_measurements_the_interval_says_so(times):
    adapted = adapt(times.predictor, [], times=times)
    answer = adapted.corrected(times.predict(times.space.random(3, 1)))
    assert (answer["latency_high_s"] / answer["latency_low_s"] > 1000).all()


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_bad_measurements_are_named(times, seconds):
    genomes = times.space.random(2, 1)
    with pytest.raises(moecast.InputError, match="row 1"):
        adapt(times.predictor, [(genomes[0], 1.0), (genomes[1], seconds)], times=times)


def rank_correlation(a, b):
    ranks = [numpy.argsort(numpy.argsort(x)) for x in (a, b)]
    return numpy.corrcoef(*ranks)[0, 1]


def hat_columns(predictor, name, most, part):
    """Predictions of the tables' architectures: they hold means over layers, so every layer gets the mean."""
    with gzip.open(TABLES / f"hat.{name}.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))[:most]
    models, measured = [], []
    for row in rows:
        v = {key: float(value) for key, value in row.items()}

        def stack(side, layers, cross, v=v):
            heads = max(1, round(v[f"{side}_self_attention_heads_avg"]))
            attention = {
                "type": "attention",
                "heads": heads,
                "kv_heads": heads,
                "head_dim": 512 // heads,
                "causal": side == "decoder",
            }
            blocks = [
                attention,
                {
                    "type": "ffn",
                    "ffn": {"width": round(v[f"{side}_ffn_embed_dim_avg"]), "gated": False, "activation": "relu"},
                },
            ]
            if cross:
                sources = v["decoder_arbitrary_ende_attn_avg"]
                blocks.insert(
                    1,
                    {
                        **attention,
                        "kind": "cross",
                        "causal": False,
                        "source_layers": max(1, round(1 + sources if sources > 0 else 1)),
                    },
                )
            return [{"repeat": layers, "blocks": blocks}]

        models.append(
            moecast.Architecture.from_dict(
                {
                    "moecast_architecture": 1,
                    "name": "hat",
                    "hidden": int(v["decoder_embed_dim"]),
                    "encoder_hidden": int(v["encoder_embed_dim"]),
                    "vocabulary": 32768,
                    "tied_embeddings": True,
                    "dtype": "fp32",
                    "encoder": stack("encoder", int(v["encoder_layer_num"]), False),
                    "decoder": stack("decoder", int(v["decoder_layer_num"]), True),
                }
            )
        )
        measured.append(1e-3 * (v["latency_mean_decoder"] + (v["latency_mean_encoder"] if part == "sum" else 0)))
    request = moecast.Request(batch=1, prompt=30, target=30, beams=5, encoder_decoder=True)
    return predictor.predict_batch(models, request), numpy.array(measured)


def hat_features(name, most):
    """The columns that HAT's own predictor sees."""
    with gzip.open(TABLES / f"hat.{name}.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))[:most]
    return numpy.array([[float(v) for k, v in row.items() if not k.startswith("latency")] for row in rows])


def decoder_only(columns):
    """The later steps, which generate."""
    out = dict(columns)
    for name in ("latency_s", "compute_s", "calls"):
        out[name] = columns[name] - columns[f"first_{name}"]
        out[f"first_{name}"] = 0 * columns[name]
    return out


@pytest.mark.skipif(not TABLES.is_dir(), reason="no shared measurements beside the repository")
@pytest.mark.parametrize(
    "name, part, least",
    [
        ("wmt14ende_cpu_xeon", "decoder", 0.95),
        ("wmt14ende_cpu_xeon", "sum", 0.95),
        ("wmt14ende_cpu_raspberrypi", "decoder", 0.95),
        # Its encoder's times differ by a third between nearly equal architectures: none ranks the sum better.
        ("wmt14ende_cpu_raspberrypi", "sum", 0.85),
    ],
)
def test_hat_tables_from_ten_rows_A17(predictor, name, part, least):
    columns, measured = hat_columns(predictor, name, 600, part)
    if part == "decoder":
        columns = decoder_only(columns)
    g = numpy.random.default_rng(5)
    correlations, covered = [], []
    for _ in range(10):
        order = g.permutation(len(measured))
        few, rest = order[:10], order[10:]
        correction = Correction({k: v[few] for k, v in columns.items()}, measured[few])
        answer = correction.apply({k: v[rest] for k, v in columns.items()})
        correlations.append(rank_correlation(answer["latency_s"], measured[rest]))
        covered.append(
            ((answer["latency_low_s"] <= measured[rest]) & (measured[rest] <= answer["latency_high_s"])).mean()
        )
    print(name, part, numpy.mean(correlations), numpy.min(correlations), numpy.mean(covered))
    assert numpy.mean(correlations) >= least


def test_collection_is_diverse_and_resumes(predictor, tmp_path):
    space = load_space("llm-moe")
    times = SpaceTimes(space, predictor)
    calls = []

    def runner(genes):
        calls.append(genes)
        if len(calls) == 9:
            raise RuntimeError("lost")
        return times.one(space.encode(genes))[0] * 2

    path = tmp_path / "collection.jsonl"
    with pytest.warns(RuntimeWarning, match="lost"):
        genomes, seconds = moecast.collect(space, runner, 24, base=predictor, pool=300, path=path)
    # The one that was lost is replaced by another.
    assert len(genomes) == 24 == len(seconds) == len(numpy.unique(genomes, axis=0)) == len(calls) - 1
    spread = times.predict(genomes)["latency_s"]
    everything = times.predict(space.random(300, 1))["latency_s"]
    assert spread.max() / spread.min() > 0.7 * everything.max() / everything.min()
    calls.clear()
    again, _ = moecast.collect(space, runner, 24, base=predictor, pool=300, path=path)
    assert not calls and (again == genomes).all()
