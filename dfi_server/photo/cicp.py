"""Colours said in code points (ITU-T H.273, "CICP") instead of an ICC profile, as PNG, AVIF and HEIC may."""

from typing import NamedTuple

from dfi_server.photo import icc

_C = (0.310, 0.316)
_SMPTE_170M = ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070))
_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
_BT709_CURVE: icc.Curve = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)

# Colour primaries -> red, green, blue, white
_PRIMARIES = {
    1: (icc.SRGB_PRIMARIES, icc.D65),
    4: (((0.67, 0.33), (0.21, 0.71), (0.14, 0.08)), _C),
    5: (((0.64, 0.33), (0.29, 0.60), (0.15, 0.06)), icc.D65),
    6: (_SMPTE_170M, icc.D65),
    7: (_SMPTE_170M, icc.D65),
    8: (((0.681, 0.319), (0.243, 0.692), (0.145, 0.049)), _C),
    9: (((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)), icc.D65),
    11: (_P3, (0.314, 0.351)),
    12: (_P3, icc.D65),
    22: (((0.630, 0.340), (0.295, 0.605), (0.155, 0.077)), icc.D65),
}
# Transfer characteristics -> the curve
_TRANSFERS: dict[int, icc.Curve] = {
    1: _BT709_CURVE,
    4: (2.2,),
    5: (2.8,),
    6: _BT709_CURVE,
    7: (1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4.0, 0.0913),
    8: (1.0,),
    11: _BT709_CURVE,
    13: icc.SRGB_CURVE,
    14: _BT709_CURVE,
    15: _BT709_CURVE,
}
_NAMES = {1: "BT.709", 9: "BT.2020", 11: "DCI-P3", 12: "P3"}
_SRGB, _SRGB_TRANSFER = 1, 13
_UNSAID = {0, 2, 3}  # reserved, unspecified
_HDR = {16: "PQ", 18: "HLG"}


class CodePoints(NamedTuple):
    """Colour primaries, transfer characteristics and matrix coefficients, by their numbers in H.273."""

    primaries: int
    transfer: int
    matrix: int


def profile(said: CodePoints, channels: int) -> bytes | None:
    """An ICC profile of the same meaning for a photo of 1 or 3 channels; None where that is sRGB.

    What is left unspecified is taken for sRGB's. Raises ValueError for colours that edits would spoil.
    """
    primaries = _SRGB if said.primaries in _UNSAID else said.primaries
    transfer = _SRGB_TRANSFER if said.transfer in _UNSAID else said.transfer
    refuse_hdr(transfer)
    if primaries not in _PRIMARIES or transfer not in _TRANSFERS:
        raise ValueError(f"its colours, code points {primaries} and {transfer}, are not known here: convert it to sRGB")
    if transfer == _SRGB_TRANSFER and (primaries == _SRGB or channels == 1):
        return None
    name = f"{_NAMES.get(primaries, f'Primaries {primaries}')}, transfer {transfer} (H.273)"
    points, white = _PRIMARIES[primaries]
    curve = _TRANSFERS[transfer]
    return icc.gray(name, curve) if channels == 1 else icc.rgb(name, points, white, curve)


def refuse_hdr(transfer: int | None) -> None:
    """Raise ValueError for transfer characteristics of HDR: edits know no light beyond a screen's white."""
    if transfer in _HDR:
        raise ValueError(f"it is an HDR photo, {_HDR[transfer]}, which edits would spoil: convert it to SDR first")
