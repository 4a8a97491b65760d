"""Adapters to the interfaces of other search tools, one a file."""
