"""From NumPy code to a graph: tracers, their storages, and the NumPy functions they answer to."""
