"""SpaceTimes: threads, pickling, mixtures."""

import concurrent.futures
import pickle
import sys

import moecast
import numpy
import pytest
from moecast.spaces import SpaceTimes


@pytest.fixture
def impatient_threads():
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_threads_share_it_without_changing_an_answer(predictor, impatient_threads):
    space = moecast.load_space("automoe-wmt14-en-de")
    genomes = [space.random(60, seed) for seed in range(4)]
    alone = [SpaceTimes(space, predictor).predict(g)["latency_s"] for g in genomes]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            times = SpaceTimes(space, predictor)
            together = list(pool.map(lambda g, times=times: times.predict(g)["latency_s"], genomes))
            afterwards = [times.predict(g)["latency_s"] for g in genomes]
            numpy.testing.assert_allclose(together, alone, rtol=1e-9)
            numpy.testing.assert_allclose(afterwards, alone, rtol=1e-9)


def test_a_copy_answers_the_same(predictor):
    times = SpaceTimes(moecast.load_space("llm-moe"), predictor, moecast.Workload(batch=4))
    genomes = times.space.random(5, 1)
    copy = pickle.loads(pickle.dumps(times))
    numpy.testing.assert_allclose(copy.predict(genomes)["latency_s"], times.predict(genomes)["latency_s"], rtol=1e-9)


def test_a_mixture_of_outputs_repeats_all_that_adds_up(predictor):
    space = moecast.load_space("mixture-of-supernets")
    genome = space.random(1, 1)
    mixed = {
        mix: SpaceTimes(space, predictor).predict(
            [space.encode({**space.decode(genome[0]), "mix": mix, "mixture_experts": 2})]
        )
        for mix in ("outputs", "weights")
    }
    for name in ("latency_s", "calls", "first_latency_s", "first_compute_s", "first_calls"):
        assert mixed["outputs"][name] == pytest.approx(2 * mixed["weights"][name]), name


def test_a_genome_that_makes_no_model_spoils_no_other(predictor):
    description = dict(moecast.load_space("llm-moe").description)
    description["fields"] = {**description["fields"], "decoder.heads": [8, 7]}
    space = moecast.load_space(description)
    times = SpaceTimes(space, predictor)
    good, bad = (space.encode({"decoder.heads": heads}) for heads in (8, 7))
    with pytest.raises(moecast.InputError, match="7 heads"):
        times.predict([bad])
    assert times.predict([good])["latency_s"][0] > 0
