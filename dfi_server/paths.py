"""Where the program keeps what it downloads and builds."""

import os
from pathlib import Path

import platformdirs

FULL_STORE = "lfw"
"""The name of the store that `dfi setup` builds."""

STARTER = Path(__file__).parent / "starter"
"""The folder of the store that is part of the package, and its name."""

PORTRAITS = Path(__file__).parent / "portraits"
"""The folder of what was learnt from sharp portraits; part of the package."""

PREDICTORS = Path(__file__).parent / "predictors"
"""The folder of what solves begin with, a file for each network (solver/predictor.py); part of the package."""

SAMPLE = Path(__file__).parent / "sample" / "astronaut.jpg"
"""The portrait that is part of the package."""

PREVIEW = "preview"
"""The name by which the starter's small model is opened, that of a quick look."""

DETAIL = "detail"
"""The name by which the starter's vectors for a frame as fine as a sharp portrait are opened."""

STARTER_HINT = "'dfi setup' builds the full one, which edits better"


def home() -> Path:
    """The state folder: the environment variable DFI_HOME, else the platform's user data folder."""
    chosen = os.environ.get("DFI_HOME")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_data_dir("dfi", appauthor=False))


def stores() -> Path:
    """The folder that holds one folder per store of attribute vectors."""
    return home() / "stores"


def own() -> Path:
    """The folder of the attributes that the user has taught: beside the stores, which `dfi setup` rebuilds."""
    return home() / "own"


def faces() -> Path:
    """The file of LFW's faces that `dfi setup` keeps beside the stores, for neighbours."""
    return stores() / "faces.safetensors"


def downloads() -> Path:
    """The folder for downloaded archives; safe to delete once a store is built."""
    return home() / "downloads"


def galleries() -> Path:
    """The folder of what was seen in folders of faces that photos were filled from; safe to delete."""
    return home() / "galleries"
