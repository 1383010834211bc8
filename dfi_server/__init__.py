"""Deep Feature Interpolation of portraits: a server, a command line and a GIMP plug-in (arXiv 1611.05507)."""

import os

__version__ = "0.2.0"

# What PyTorch cannot do on Apple's GPU it does on the CPU: it asks when it is imported
# (https://docs.pytorch.org/docs/stable/mps_environment_variables.html)
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
