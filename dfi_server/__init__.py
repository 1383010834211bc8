"""Deep Feature Interpolation of portraits: a server, a command line and a GIMP plug-in (arXiv 1611.05507)."""

__version__ = "0.2.0"
