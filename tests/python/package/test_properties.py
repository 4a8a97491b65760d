"""Whatever is handed in: an answer or an error of ours, and what goes around comes back."""

import gzip
import json
import os

import moecast
import numpy
import pytest
from moecast.accuracy import kendall_tau, rank_correlation
from moecast.dataset import load_dataset

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
# tools/test asks for the same examples every time, tools/dev/properties for other and more ones.
SAME = os.environ.get("HYPOTHESIS_PROFILE") == "same"
EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "60"))
settings = hypothesis.settings(max_examples=EXAMPLES, derandomize=SAME, deadline=None)
SPACES = ("automoe-180", "automoe-wmt14-en-de", "llm-moe", "moenas-vit")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def predictor():
    return moecast.Predictor("amd-epyc-2cpu", threads=1)


@settings
@hypothesis.given(name=st.sampled_from(SPACES), seed=st.integers(0, 2**32 - 1))
def test_genomes_decode_and_encode_to_themselves(name, seed):
    space = moecast.load_space(name)
    genome = space.random(1, seed)[0]
    assert numpy.array_equal(space.encode(space.decode(genome)), genome)
    assert space.valid(genome[None, :]).all()
    architecture = space.architecture(genome)
    assert moecast.Architecture.from_text(architecture.to_text(), "again").to_text() == architecture.to_text()
    assert 0 < architecture.active_parameters <= architecture.total_parameters


@settings
@hypothesis.given(
    rows=st.lists(st.tuples(*[st.integers(-2, 5000)] * 5), min_size=1, max_size=4),
    dtype=st.sampled_from([numpy.int32, numpy.int64, numpy.float64, numpy.uint8]),
)
def test_columns_of_layers_are_answered_or_refused(predictor, rows, dtype):
    with numpy.errstate(invalid="ignore"):
        array = numpy.array(rows).astype(dtype)
    names = ("hidden", "width", "experts", "top_k", "tokens")
    try:
        answer = predictor.predict_batch({name: array[:, i].copy() for i, name in enumerate(names)})
    except moecast.InputError:
        return
    assert answer["latency_s"].shape == (len(rows),)
    ok = ~numpy.isnan(answer["latency_s"])
    assert (answer["latency_s"][ok] > 0).all()
    assert (answer["latency_low_s"][ok] <= answer["latency_s"][ok]).all()
    assert (answer["latency_s"][ok] <= answer["latency_high_s"][ok]).all()


@settings
@hypothesis.given(value=json_values)
def test_any_json_is_a_space_or_refused(value):
    description = {"moecast_space": 1, "name": "x", "family": "decoder", "fields": value}
    for candidate in (value if isinstance(value, dict) else {}, description):
        try:
            space = moecast.Space(candidate)
        except moecast.InputError:
            continue
        assert space.size() >= 1


@settings
@hypothesis.given(content=st.binary(max_size=60), value=json_values)
def test_any_file_is_a_dataset_or_refused(tmp_path_factory, content, value):
    path = tmp_path_factory.mktemp("data") / "d.gz"
    header = json.dumps({"moecast_dataset": 1, "setups": {"a": {}}}).encode()
    for raw in (content, gzip.compress(content), gzip.compress(header + b"\n" + json.dumps(value).encode())):
        path.write_bytes(raw)
        try:
            load_dataset(path)
        except moecast.InputError:
            pass


@settings
@hypothesis.given(values=st.lists(st.floats(1e-6, 1e3), min_size=3, max_size=30, unique=True))
def test_ranks_agree_with_themselves_and_no_more_with_their_reverse(values):
    a = numpy.array(values)
    assert kendall_tau(a, a) == pytest.approx(1)
    assert kendall_tau(a, -a) == pytest.approx(-1)
    assert rank_correlation(a, 2 * a) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)
