"""What type checkers read: the stub names what the package has, public functions say their types."""

import ast
import inspect
import pathlib

import moecast
import pytest

STUB = ast.parse(pathlib.Path(moecast.__file__).with_name("__init__.pyi").read_text(encoding="utf-8"))


def stub_functions():
    return {node.name: node for node in STUB.body if isinstance(node, ast.FunctionDef)}


def test_the_stub_has_every_public_name():
    named = set(stub_functions())
    for node in STUB.body:
        if isinstance(node, ast.ImportFrom):
            named |= {alias.asname for alias in node.names if alias.asname}
    assert named == set(moecast.__all__)


@pytest.mark.parametrize("name", sorted(stub_functions()))
def test_functions_of_the_stub_take_what_the_functions_take(name):
    said = stub_functions()[name].args
    taken = inspect.signature(getattr(moecast, name)).parameters
    names = [a.arg for a in (*said.args, *([said.vararg] if said.vararg else []), *said.kwonlyargs)]
    assert names + ([said.kwarg.arg] if said.kwarg else []) == list(taken)


@pytest.mark.parametrize(
    "function",
    [
        moecast.adapt,
        moecast.expected_latency,
        moecast.from_torch,
        moecast.AdaptedPredictor.predict,
        moecast.AdaptedPredictor.predict_batch,
        moecast.ExpectedLatency.of_layers,
        moecast.HardwareAwareMoE.estimate_latency,
        moecast.Predictor.predict,
        moecast.Predictor.predict_batch,
        moecast.Predictor.explain,
        moecast.Request.steps,
    ],
)
def test_public_functions_say_their_types(function):
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    untyped = [n for n, p in signature.parameters.items() if p.annotation is p.empty and n not in ("self", "cls")]
    assert not untyped


def test_the_extras_install_what_modules_need():
    tomllib = pytest.importorskip("tomllib")
    project = pathlib.Path(__file__).parents[3] / "pyproject.toml"
    extras = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert {"torch", "onnx", "search", "parquet"} <= set(extras)
    assert any(wanted.startswith("onnxruntime") for wanted in extras["onnx"])
