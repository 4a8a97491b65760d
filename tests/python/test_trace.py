"""The file of `moecast trace` against the Chrome trace format, strictly, and against what it should show."""

import json
import os
import subprocess
from collections import defaultdict
from pathlib import Path

import jsonschema
import pytest

ROOT = Path(__file__).resolve().parents[2]
MOECAST = Path(os.environ.get("MOECAST", ROOT / "build/release/moecast"))

NUMBER = {"type": "number", "minimum": 0}
IDS = {"pid": {"type": "integer", "minimum": 0}, "tid": {"type": "integer", "minimum": 0}}
NAME = {"name": {"type": "string", "minLength": 1}}


def kind(phase, fields, **rest):
    properties = {"ph": {"const": phase}} | fields
    optional = rest.get("optional", {})
    return {"type": "object", "properties": properties | optional, "required": list(properties),
            "additionalProperties": False}


METADATA = {"oneOf": [
    {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"], "additionalProperties": False},
    {"type": "object", "properties": {"sort_index": {"type": "integer"}}, "required": ["sort_index"],
     "additionalProperties": False}]}
FLOW = IDS | NAME | {"ts": NUMBER, "id": {"type": "integer"}, "cat": {"type": "string"}}
TRACK_NAMES = ["process_name", "process_sort_index", "thread_name", "thread_sort_index"]
SCHEMA = {
    "type": "object",
    "properties": {
        "displayTimeUnit": {"enum": ["ms", "ns"]},
        "otherData": {"type": "object", "additionalProperties": {"type": "string"}},
        "traceEvents": {"type": "array", "minItems": 1, "items": {"oneOf": [
            kind("X", IDS | NAME | {"ts": NUMBER, "dur": NUMBER, "cat": {"type": "string"},
                                    "args": {"type": "object"}}),
            kind("C", {"pid": IDS["pid"]} | NAME | {"ts": NUMBER, "args": {
                "type": "object", "minProperties": 1, "additionalProperties": NUMBER}}),
            kind("s", FLOW),
            kind("t", FLOW | {"bp": {"const": "e"}}),
            kind("f", FLOW | {"bp": {"const": "e"}}),
            kind("M", {"pid": IDS["pid"], "name": {"enum": TRACK_NAMES}, "args": METADATA},
                 optional={"tid": IDS["tid"]}),
        ]}},
    },
    "required": ["traceEvents"],
    "additionalProperties": False,
}

CASES = {
    "two_nodes": ["--model", "deepseek-v3", "--hw", "h200-sxm", "--ep", "16", "--batch", "512"],
    "chunks_and_skew": ["--model", "mixtral-8x7b", "--hw", "h100-sxm", "--ep", "8", "--batch", "64", "--chunks", "2",
                        "--load", "zipf:1.2"],
    "two_batches": ["--model", "deepseek-v3", "--hw", "h200-sxm", "--ep", "8", "--batch", "64", "--batches", "2"],
    "others_traffic": ["--model", "mixtral-8x7b", "--hw", "h200-sxm", "--ep", "8", "--batch", "64", "--background",
                       "0.2"],
    "training": ["--model", "olmoe-1b-7b", "--hw", "h200-sxm", "--ep", "8", "--phase", "train", "--batch", "8",
                 "--prompt", "512"],
    "cpu": ["--model", "olmoe-1b-7b", "--hw", "intel-xeon-processor-2cpu", "--batch", "4"],
}


@pytest.fixture(scope="module", params=list(CASES))
def trace(request, tmp_path_factory):
    if not MOECAST.exists():
        pytest.skip(f"{MOECAST} is not built")
    path = tmp_path_factory.mktemp("trace") / "run.perfetto.json"
    subprocess.run([MOECAST, "trace", *CASES[request.param], "-o", path], check=True, capture_output=True)
    return request.param, json.loads(path.read_text())


def events(document, phase):
    return [event for event in document["traceEvents"] if event["ph"] == phase]


def test_it_is_a_chrome_trace(trace):
    _, document = trace
    jsonschema.Draft7Validator(SCHEMA).validate(document)


def test_every_process_and_track_has_a_name(trace):
    _, document = trace
    processes = {e["pid"] for e in events(document, "M") if e["name"] == "process_name"}
    tracks = {(e["pid"], e["tid"]) for e in events(document, "M") if e["name"] == "thread_name"}
    assert {e["pid"] for e in document["traceEvents"]} <= processes
    assert {(e["pid"], e["tid"]) for e in events(document, "X")} == tracks


def test_slices_of_a_track_follow_or_hold_each_other(trace):
    name, document = trace
    if name == "others_traffic":
        pytest.skip("others' traffic lies over what it slows")
    links = {(e["pid"], e["tid"]) for e in events(document, "X") if e["cat"] == "link"}
    tracks = defaultdict(list)
    for e in events(document, "X"):
        if (e["pid"], e["tid"]) not in links:
            tracks[e["pid"], e["tid"]].append((e["ts"], e["ts"] + e["dur"]))
    for slices in tracks.values():
        slices.sort(key=lambda s: (s[0], -s[1]))
        for before, after in zip(slices, slices[1:]):
            assert after[0] >= before[1] - 1e-3 or after[1] <= before[1] + 1e-3


def test_arrows_lead_from_dispatch_to_experts_to_combine(trace):
    name, document = trace
    slices = defaultdict(list)
    for e in events(document, "X"):
        slices[e["pid"], e["tid"]].append(e)
    arrows = defaultdict(dict)
    for phase in "stf":
        for e in events(document, phase):
            inside = [s for s in slices[e["pid"], e["tid"]] if s["ts"] - 1e-6 <= e["ts"] <= s["ts"] + s["dur"] + 1e-6]
            assert inside, f"{e} lies in no slice"
            arrows[e["id"]][phase] = e
            wanted = {"s": "dispatch", "t": "experts", "f": "combine"}[phase]
            assert any(wanted in s["name"] for s in inside)
    assert bool(arrows) == (name not in ("cpu", "training"))
    for arrow in arrows.values():
        assert set(arrow) == {"s", "t", "f"}
        assert arrow["s"]["ts"] <= arrow["t"]["ts"] <= arrow["f"]["ts"]
        assert len({e["pid"] for e in arrow.values()}) == 1


def test_counters_return_to_zero_and_stay_below_the_link(trace):
    name, document = trace
    last = {}
    for e in events(document, "C"):
        last[e["pid"], e["name"]] = e["args"]["value"]
    names = {counter for _, counter in last}
    assert ("memory GB/s" in names) == (name != "training")
    if name != "cpu":
        assert any("port" in counter or "nic" in counter for counter in names)
    assert all(value == 0 for value in last.values())
