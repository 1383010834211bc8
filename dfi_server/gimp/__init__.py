"""GIMP on this machine: where it is, what its Python needs, and the plug-in put there, looked at and taken away."""
