"""The report's pictures, as data URIs: the page is one file and fetches nothing."""

import base64
import io

import cv2
import numpy as np
from PIL import Image

_QUALITY = 88
_FULL = 99.8  # percentile of a difference that is drawn white
_GLOW = 0.85  # how far the heat covers the photo where it is greatest


def reduced(picture: np.ndarray, longest: int) -> np.ndarray:
    """The same with at most so many pixels to a side."""
    image = Image.fromarray(picture)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return np.asarray(image)


def uri(picture: np.ndarray) -> str:
    """A picture, (h, w, 3) uint8, as a JPEG within an address."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=_QUALITY, subsampling=0, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def faded(picture: np.ndarray) -> np.ndarray:
    """In pale gray, for what is drawn over it."""
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.repeat(np.rint(110 + gray * 0.55).astype(np.uint8)[..., None], 3, axis=2)


def difference(amount: np.ndarray) -> tuple[np.ndarray, float]:
    """(h, w) in 255ths of white as a picture from black over red to white, and what is white in it."""
    top = max(4.0, float(np.percentile(amount, _FULL)))
    return _coloured(np.sqrt(np.clip(amount / top, 0, 1)), cv2.COLORMAP_INFERNO), top


def heat(picture: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """A picture with heat over it: as much as `energy`, (h, w), is of its largest value."""
    share = np.sqrt(np.clip(energy / max(float(energy.max()), 1e-12), 0, 1))
    glow = _GLOW * np.clip(2 * share, 0, 1)[..., None]
    gray = np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    return np.asarray(np.rint(gray * (1 - glow) + _coloured(share, cv2.COLORMAP_INFERNO) * glow), dtype=np.uint8)


def _coloured(share: np.ndarray, colours: int) -> np.ndarray:
    bgr = cv2.applyColorMap(np.rint(255 * share).astype(np.uint8), colours)
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
