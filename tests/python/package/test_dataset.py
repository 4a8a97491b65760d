"""Executed architectures: files of them, the runtime that makes them, and broken files."""

import gzip
import json
import os

import moecast
import pytest
from moecast.dataset import dataset_names, load_dataset, write_dataset
from moecast.runners import Runtime

HEADER = {
    "setups": {
        "a": {"space": "automoe-180", "runtime": "onednn", "threads": 1, "workload": {"phase": "decode", "batch": 2}}
    }
}
ROW = {"setup": "a", "genome": [0, 0, 0, 0], "latency_s": 0.5, "noise_ratio": 0.01}


def test_a_written_dataset_reads_back(tmp_path):
    write_dataset(tmp_path / "d.jsonl.gz", HEADER, [ROW, {**ROW, "latency_s": 0.25}])
    first = (tmp_path / "d.jsonl.gz").read_bytes()
    write_dataset(tmp_path / "d.jsonl.gz", HEADER, [ROW, {**ROW, "latency_s": 0.25}])
    assert (tmp_path / "d.jsonl.gz").read_bytes() == first
    dataset = load_dataset(tmp_path / "d.jsonl.gz")
    genomes, columns = dataset.of("a")
    assert genomes.shape == (2, 4)
    assert columns["latency_s"].tolist() == [0.5, 0.25]
    assert dataset.workload("a").batch == 2
    with pytest.raises(moecast.InputError, match="'b' is not known"):
        dataset.of("b")


def test_a_dataset_keeps_its_space(tmp_path):
    own = {**moecast.load_space("automoe-180").description, "name": "automoe-180"}
    own["fields"] = {**own["fields"], "encoder.experts": [64]}
    write_dataset(tmp_path / "d.jsonl.gz", {**HEADER, "spaces": {"automoe-180": own}}, [ROW])
    assert load_dataset(tmp_path / "d.jsonl.gz").space("a").size() == 3 * 3 * 4


@pytest.mark.parametrize("name", dataset_names())
def test_what_ships_is_what_its_card_says(name):
    """At least 1,500 architectures of both spaces on both runtimes, with their noise; each can be built again."""
    dataset = load_dataset(name)
    assert len(dataset) >= 1500
    assert {s["space"] for s in dataset.header["setups"].values()} == {"llm-moe", "automoe-wmt14-en-de"}
    assert {s["runtime"] for s in dataset.header["setups"].values()} == {"onednn", "torch"}
    assert dataset.header["machine"]["cpu"] and dataset.header["libraries"]["torch"]
    for setup in dataset.header["setups"]:
        genomes, columns = dataset.of(setup)
        assert len(genomes) == len(columns["latency_s"]) > 0
        assert (columns["latency_s"] > 0).all() and (columns["noise_ratio"] >= 0).all()
        assert dataset.space(setup).architecture(genomes[0]).total_parameters > 0


def test_an_unknown_name_is_refused():
    with pytest.raises(moecast.UsageError, match="is not known"):
        load_dataset("no-such-dataset")


@pytest.mark.parametrize(
    "line, problem",
    [
        ("{", "line 2: is damaged"),
        ("[1]", "line 2: is damaged"),
        (json.dumps({**ROW, "latency_s": -1}), "line 2: latency_s -1 is no time"),
        (json.dumps({**ROW, "latency_s": None}), "line 2: latency_s None is no time"),
        (json.dumps({**ROW, "latency_s": True}), "line 2: latency_s True is no time"),
        (json.dumps({**ROW, "setup": "b"}), "line 2: has no known setup"),
        (json.dumps({**ROW, "setup": ["a"]}), "line 2: has no known setup"),
        (json.dumps({**ROW, "genome": "0"}), "line 2: has no known setup or no genome"),
        (json.dumps({**ROW, "genome": [2**70]}), "line 2: genome: is no list of numbers"),
        (json.dumps({**ROW, "genome": [0.5]}), "line 2: genome: is no list of numbers"),
        (json.dumps({**ROW, "noise_ratio": None}), "line 2: noise_ratio None is no finite number"),
        (json.dumps({**ROW, "noise_ratio": float("inf")}), "line 2: noise_ratio inf is no finite number"),
        (f"{json.dumps(ROW)}\n{json.dumps({**ROW, 'genome': [0]})}", "line 3: has other columns or genes"),
        (f"{json.dumps(ROW)}\n{json.dumps({**ROW, 'low_s': 1})}", "line 3: has other columns or genes"),
        ("[" * 200_000, "line 2: is damaged"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, problem):
    path = tmp_path / "d.jsonl.gz"
    header = json.dumps({"moecast_dataset": 1, **HEADER})
    path.write_bytes(gzip.compress(f"{header}\n{line}\n".encode()))
    with pytest.raises(moecast.InputError, match=problem):
        load_dataset(path)


def test_a_file_that_is_none_is_refused(tmp_path):
    for content in (b"no gzip", gzip.compress(b"{}\n"), gzip.compress(b"x" * 100)[:-9], b""):
        (tmp_path / "d.jsonl.gz").write_bytes(content)
        with pytest.raises(moecast.InputError):
            load_dataset(tmp_path / "d.jsonl.gz")
    with pytest.raises(moecast.InputError, match="cannot be read"):
        load_dataset(tmp_path / "missing.gz")


def test_flipped_bytes_are_an_error_of_the_file(tmp_path):
    write_dataset(tmp_path / "d.jsonl.gz", HEADER, [{**ROW, "latency_s": 1 + i / 7} for i in range(200)])
    whole = (tmp_path / "d.jsonl.gz").read_bytes()
    for place in range(12, len(whole) - 9, 7):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        broken[place + 1] ^= 0x55
        (tmp_path / "d.jsonl.gz").write_bytes(broken)
        with pytest.raises(moecast.InputError):
            load_dataset(tmp_path / "d.jsonl.gz")


def test_what_is_no_file_is_no_dataset(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.gz")
    for path in (tmp_path / "pipe.gz", tmp_path, "/dev/null"):
        with pytest.raises(moecast.InputError, match="no such file"):
            load_dataset(path)
    for name in (None, 5, [1]):
        with pytest.raises(moecast.UsageError, match="is no name"):
            load_dataset(name)
    monkeypatch.setattr("moecast.dataset._LONGEST_LINE", 1000)
    (tmp_path / "d.gz").write_bytes(gzip.compress(b" " * 10**6))  # 1 MB of one line from 1 kB
    with pytest.raises(moecast.InputError, match="line 1: is damaged"):
        load_dataset(tmp_path / "d.gz")


def test_setups_that_hold_nothing_are_named(tmp_path):
    def setup(content):
        write_dataset(tmp_path / "d.jsonl.gz", {"setups": {"a": content}}, [])
        return load_dataset(tmp_path / "d.jsonl.gz")

    for name in ("b", 5, ["a"]):
        for part in ("of", "space", "workload"):
            with pytest.raises(moecast.InputError, match="is not known"):
                getattr(setup({"space": "llm-moe", "workload": {}}), part)(name)
    with pytest.raises(moecast.InputError, match="/setups/a"):
        setup(5)
    with pytest.raises(moecast.InputError, match="/workload/zz"):
        setup({"workload": {"zz": 1}}).workload("a")
    for space in (None, "none", [1]):
        with pytest.raises(moecast.InputError, match="setup 'a'"):
            setup({"space": space}).space("a")


def test_the_runtime_executes_architectures_in_order():
    space = moecast.load_space("llm-moe")
    small = {"decoder.hidden": 512, "decoder.layers": 4, "decoder.width": 1024, "decoder.experts": 1}
    large = {**small, "decoder.layers": 12, "decoder.hidden": 1024, "decoder.width": 3072}
    architectures = [space.architecture(space.encode(c)) for c in (large, small)]
    runs = Runtime("amd-epyc-2cpu", rounds=2).run(architectures, moecast.Workload("decode", batch=1, context=16))
    # 12 layers of 3072 x 1024 against 4 of 1024 x 512 are 18 times the weights.
    assert runs[0].latency_s > 3 * runs[1].latency_s
    assert all(run.predicted_low_s < run.predicted_s < run.predicted_high_s for run in runs)


def test_the_runtime_refuses_what_it_does_not_execute():
    space = moecast.load_space("automoe-180")
    with pytest.raises(moecast.InputError, match="encoder: not supported yet"):
        Runtime("amd-epyc-2cpu").run([space.architecture(space.random(1, 1)[0])], moecast.Workload("decode"))
    layer = moecast.Architecture.moe_layer(64, 64, experts=2, top_k=1)
    with pytest.raises(moecast.InputError, match="mixed"):
        Runtime("amd-epyc-2cpu").run([layer], moecast.Workload("mixed"))
