"""Search spaces as data: choices of a family of architectures, genomes, and their latency in batches."""

from moecast.spaces.space import Space, load_space, space_names
from moecast.spaces.supernet import supernet_cost
from moecast.spaces.timing import SpaceTimes

__all__ = ["Space", "SpaceTimes", "load_space", "space_names", "supernet_cost"]
