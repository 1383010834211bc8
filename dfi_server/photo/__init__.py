"""A photograph in memory, on disk, and in its colour space."""
