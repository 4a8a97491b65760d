"""`moecast search`: what it prints, and what it ends with."""

import csv
import io
import json
import os
import subprocess
import sys

import moecast
import pytest
from grid import GRID

pytest.importorskip("pymoo")

from moecast.command_line import ended, report  # noqa: E402
from moecast.search.command import run  # noqa: E402

HW = ["--hw", "amd-epyc-2cpu", "--threads", "1"]


def said(capsys, *words):
    """Exit code and output of a search on the grid."""
    code = run(["--space", GRID, *HW, *words])
    return code, capsys.readouterr()


def test_command(capsys, tmp_path):
    out = tmp_path / "out.json"
    assert run(["--space", GRID, *HW, "--objective", "latency", "--format", "json", "-o", str(out)]) == 0
    assert json.loads(out.read_text())["status"] == "ok"
    code, output = said(capsys, "--constraint", "latency<1us", "--objective", "latency")
    assert code == 1 and "nothing that was tried keeps latency<=1e-06s" in output.err
    assert output.err.splitlines()[-1].startswith("no architecture keeps all constraints"), "an answer, no error"
    assert run(["--space", "no", *HW]) == 2


def test_every_format_shows_the_same_front(capsys):
    words = ("--objective", "latency", "--objective", "size:max")
    front = json.loads(said(capsys, *words, "--format", "json")[1].out)["front"]
    lines = [json.loads(line) for line in said(capsys, *words, "--format", "jsonl")[1].out.splitlines()]
    assert lines == front and len(front) > 1
    rows = list(csv.DictReader(io.StringIO(said(capsys, *words, "--format", "csv")[1].out)))
    assert [float(row["latency"]) for row in rows] == [entry["latency"] for entry in front]
    header, rule, *body = said(capsys, *words, "--format", "md")[1].out.splitlines()
    assert header.count("|") == rule.count("|") == body[0].count("|") and "| encoder.experts |" in header
    assert len(body) == len(front) and f"{front[0]['latency']:.6g}" in body[0]


def test_limits_as_flags_are_constraints(capsys):
    flags = ("--latency", "400ms", "--flops", "100GFLOP", "--memory", "16GiB")
    texts = [word for limit in ("latency<400ms", "flops<100G", "memory<16GiB") for word in ("--constraint", limit)]
    by_flag, by_text = (json.loads(said(capsys, *words, "--format", "json")[1].out) for words in (flags, texts))
    written = ["latency<=0.4s", "flops<=1e+11FLOP", "memory<=1.71799e+10B"]
    assert by_flag["constraints"] == by_text["constraints"] == written
    assert by_flag["front"] == by_text["front"]


def test_the_workload_and_the_machine_are_what_was_asked(capsys):
    small = ("--objective", "latency", "--method", "random", "--generations", "1", "--population", "4")

    def best(*words):
        assert run(["--space", "llm-moe", *HW, *small, *words, "--format", "json"]) == 0
        return json.loads(capsys.readouterr().out)["front"][0]

    predictor = moecast.Predictor("amd-epyc-2cpu", threads=1)
    space = moecast.load_space("llm-moe")
    answer = best("--batch", "4", "--context", "2000")
    model = space.architecture(space.encode(answer["genes"]))
    assert answer["latency"] == pytest.approx(predictor.predict(model, batch=4, context=2000).latency_s, rel=0.01)
    assert best("--backend", "onednn", "--dtype", "fp32")["latency"] == best()["latency"]


@pytest.mark.parametrize(
    "words",
    [
        ["--seed", "-1"],
        ["--seed", "x"],
        ["--sede", "1"],
        ["--latency", "50"],
        ["--batch", "0"],
        ["--context", "100"],  # a request has no context
        ["--latency", "5GiB"],
        ["--memory", "5ms"],
        ["--flops", "many"],
        ["--dtype", "fp7"],
        ["--format", "xml"],
        ["--generations", "0"],
        ["--metric", "a"],
    ],
)
def test_wrong_words_are_wrong_usage(capsys, words):
    code, output = said(capsys, *words)
    error, hint = output.err.splitlines()
    assert code == 2 and not output.out
    assert error.startswith("error: ") and words[0].removeprefix("--") in error and hint.startswith("hint: ")


def test_a_broken_space_is_a_broken_input(tmp_path):
    fields = {"decoder.hidden": 256, "decoder.layers": 2, "decoder.heads": None, "decoder.width": 512}
    space = tmp_path / "space.json"
    space.write_text(json.dumps({"moecast_space": 1, "name": "x", "family": "decoder", "fields": fields}))
    words = ["search", "--space", str(space), *HW]
    done = subprocess.run(
        [sys.executable, "-m", "moecast", *words], capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.returncode == 3 and "/fields/decoder.heads: None is not" in done.stderr and len(done.stderr) < 300
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize(
    "raised, code, said",
    [
        (moecast.UsageError("--seed: is wrong (write 1)"), 2, "error: --seed: is wrong\nhint: write 1\n"),
        (moecast.InputError("a.json: is odd"), 3, "error: a.json: is odd\nhint: correct the file there"),
        (moecast.DeviceError("search: needs pymoo"), 4, "error: search: needs pymoo\nhint: moecast doctor"),
        (FileNotFoundError(2, "No such file or directory", "x.csv"), 3, "error: x.csv: No such file or directory\n"),
        (OSError(28, "No space left on device", "out"), 4, "error: out: No space left on device\n"),
        (MemoryError(), 4, "error: out of memory\nhint: close"),
        (KeyError("gene"), 70, "error: this is a bug in moecast: KeyError: 'gene'\nhint: please report"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_commands_end_as_the_program_does(capsys, raised, code, said):
    def command():
        raise raised

    assert ended(command) == code
    assert capsys.readouterr().err.startswith(said)


def test_what_went_wrong_keeps_brackets_of_its_own(capsys):
    report("latency(ms): f(x) is wrong (write f(y) or g)", 2)
    assert capsys.readouterr().err == "error: latency(ms): f(x) is wrong\nhint: write f(y) or g\n"
    report("a\x1b[2J", 3)
    assert "\x1b" not in capsys.readouterr().err
