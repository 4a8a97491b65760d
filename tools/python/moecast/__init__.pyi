from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from os import PathLike
from typing import Any

import numpy

from moecast._core import Architecture as Architecture
from moecast._core import DeviceError as DeviceError
from moecast._core import Error as Error
from moecast._core import InputError as InputError
from moecast._core import Prediction as Prediction
from moecast._core import UsageError as UsageError
from moecast._core import list_hw as list_hw
from moecast._core import list_models as list_models
from moecast._core import profile_folder as profile_folder
from moecast.adaptation import AdaptedPredictor as AdaptedPredictor
from moecast.adaptation import adapt as adapt
from moecast.dataset import Dataset as Dataset
from moecast.expectation import ExpectedLatency as ExpectedLatency
from moecast.expectation import expected_latency as expected_latency
from moecast.hardware_aware import HardwareAwareMoE as HardwareAwareMoE
from moecast.predictor import Predictor as Predictor
from moecast.search.journal import Memory
from moecast.search.remeasurement import Remeasured
from moecast.search.result import SearchResult
from moecast.spaces import Space as Space
from moecast.torch_import import from_torch as from_torch
from moecast.workload import Request as Request
from moecast.workload import Workload as Workload

__version__: str
PROGRAM: Any

_Path = str | PathLike[str]
_Space = Space | _Path | dict[str, Any]
_Machine = Predictor | AdaptedPredictor | _Path
_Asked = Workload | Request | None
_Runner = Callable[[dict[str, Any]], float]

def load_space(name: _Space) -> Space: ...
def dataset_names() -> list[str]: ...
def load_dataset(name: _Path) -> Dataset: ...
def search(
    space: _Space,
    hw: _Machine,
    *,
    objectives: Sequence[str] | None = None,
    constraints: Mapping[str, Any] | Iterable[str] = (),
    confidence: float = 0.95,
    metrics: Mapping[str, Any] | None = None,
    method: str | None = None,
    workload: _Asked = None,
    generations: int = 30,
    population: int = 125,
    parents: int = 25,
    mutations: int = 50,
    crossovers: int = 50,
    mutation_probability: float = 0.3,
    patience: int | None = None,
    seed: int = 1,
    initial: numpy.ndarray | Sequence[Sequence[int]] | None = None,
    executor: Executor | None = None,
    time_limit_s: float | None = None,
    resume: _Path | Memory | None = None,
    progress: bool | Callable[[int, int, float], None] | None = None,
) -> SearchResult: ...
def remeasure(
    space: _Space,
    hw: _Machine,
    runner: _Runner,
    *,
    rounds: int = 5,
    per_round: int = 8,
    workload: _Asked = None,
    resume: _Path | None = None,
    executor: Executor | None = None,
    time_limit_s: float | None = None,
    **how: Any,
) -> Remeasured: ...
def collect(
    space: _Space,
    runner: _Runner,
    n: int,
    *,
    base: Predictor | AdaptedPredictor,
    workload: _Asked = None,
    batch: int = 8,
    pool: int = 4096,
    seed: int = 1,
    path: _Path | None = None,
    executor: Executor | None = None,
    time_limit_s: float | None = None,
) -> tuple[numpy.ndarray, numpy.ndarray]: ...
