"""moecast: how long a Mixture-of-Experts model takes on hardware that was measured.

>>> import moecast
>>> predictor = moecast.Predictor("intel-xeon-processor-2cpu")
>>> layer = moecast.Architecture.moe_layer(1024, 2048, experts=16, top_k=2)
>>> predictor.predict(layer, tokens=64).status
'ok'

Times are seconds, sizes bytes, rates per second, as their names say. Unknown is None, or NaN in arrays.
"""

from moecast import _data
from moecast._core import (
    Architecture,
    DeviceError,
    Error,
    InputError,
    Prediction,
    UsageError,
    list_hw,
    list_models,
    profile_folder,
)
from moecast.adaptation import AdaptedPredictor, adapt
from moecast.collection import collect
from moecast.dataset import Dataset, dataset_names, load_dataset
from moecast.expectation import ExpectedLatency, expected_latency
from moecast.hardware_aware import HardwareAwareMoE
from moecast.predictor import Predictor, Request, Workload
from moecast.search import remeasure, search
from moecast.spaces import Space, load_space
from moecast.torch_import import from_torch

__version__ = "0.1.0"
__all__ = [
    "AdaptedPredictor",
    "Architecture",
    "Dataset",
    "DeviceError",
    "Error",
    "ExpectedLatency",
    "HardwareAwareMoE",
    "InputError",
    "Prediction",
    "Predictor",
    "Request",
    "Space",
    "UsageError",
    "Workload",
    "adapt",
    "collect",
    "dataset_names",
    "expected_latency",
    "from_torch",
    "list_hw",
    "list_models",
    "load_dataset",
    "load_space",
    "profile_folder",
    "remeasure",
    "search",
]
PROGRAM = _data.PROGRAM
