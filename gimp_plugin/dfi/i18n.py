"""The interface's language: `_` marks a text for translation and translates it.

The catalogues are locale/LANGUAGE/LC_MESSAGES/dfi.mo beside this file, where GIMP looks for them too; po/ has their
sources. Python's gettext goes by LANGUAGE, which GIMP sets to the language of its preferences, and by LANG.
"""

import gettext
from pathlib import Path

_ = gettext.translation("dfi", Path(__file__).resolve().parent / "locale", fallback=True).gettext
