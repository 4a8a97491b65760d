"""What executes architectures, as runners of a collection."""

import moecast
import pytest
from moecast.runners import Execution, Runtime


@pytest.fixture(scope="module")
def tiny():
    return moecast.load_space(
        {
            "moecast_space": 1,
            "name": "tiny",
            "family": "decoder",
            "workload": {"phase": "decode", "batch": 1, "context": 16},
            "fields": {
                "vocabulary": 256,
                "decoder.hidden": [128, 256],
                "decoder.layers": [1, 2],
                "decoder.heads": 4,
                "decoder.width": [128, 256],
                "decoder.experts": 4,
                "decoder.top_k": 2,
            },
        }
    )


def test_the_runtime_is_a_runner_of_a_collection(tiny, predictor, tmp_path):
    genomes, seconds = moecast.collect(tiny, Runtime("amd-epyc-2cpu", rounds=2, space=tiny), 2, base=predictor)
    assert len(genomes) == 2 and (seconds > 0).all()


def test_a_runner_executes_the_architecture_of_the_genes(tiny, monkeypatch):
    asked = []

    def run(self, architectures, workload):
        asked.extend((architecture, workload) for architecture in architectures)
        return [Execution(0.25, 0.0)]

    monkeypatch.setattr(Runtime, "run", run)
    genome = tiny.random(1, 3)[0]
    assert Runtime("amd-epyc-2cpu", space=tiny)(tiny.decode(genome)) == 0.25
    assert asked == [(tiny.architecture(genome), moecast.Workload("decode", batch=1, context=16))]
    with pytest.raises(moecast.UsageError, match="whose genes are these"):
        Runtime("amd-epyc-2cpu")(tiny.decode(genome))


def test_the_runtime_executes_steps_only(tiny):
    with pytest.raises(moecast.InputError, match="not a Request"):
        Runtime("amd-epyc-2cpu").run([tiny.architecture(tiny.random(1, 3)[0])], moecast.Request())
