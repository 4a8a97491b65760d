"""Importers of other tools' measurements."""

from moecast.importers.aiconfigurator import aiconfigurator

__all__ = ["aiconfigurator"]
