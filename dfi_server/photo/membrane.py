"""The seam of a filled hole: a smooth offset after which what was filled meets the photo in light and colour.

Inside the hole the offset is the membrane of Pérez, Gangnet & Blake, "Poisson Image Editing" (SIGGRAPH 2003, section
2): the solution of Laplace's equation that is, at the seam, what photo and filling differ by.
"""

import cv2
import numpy as np
import scipy.sparse
import scipy.sparse.linalg

_SIDE = (
    200  # cells to a side of the grid that the equation is solved on: the offset is smooth, more would only take time
)


def membrane(difference: np.ndarray, known: np.ndarray) -> np.ndarray:
    """`difference` (H, W, C) where `known` (H, W) bool, and inside the hole what it goes over into; (H, W, C) float32.

    At the picture's own border the offset runs out level. All zero where nothing is known.
    """
    height, width = known.shape
    step = max(1, -(-max(height, width) // _SIDE))
    values, counts = _cells(np.where(known[..., None], difference, 0), step), _cells(known[..., None], step)[..., 0]
    values /= np.maximum(counts, 1)[..., None]
    solved = _solve(values, counts == 0).astype(np.float32)
    smooth = cv2.resize(solved, (step * solved.shape[1], step * solved.shape[0]), interpolation=cv2.INTER_LINEAR)
    smooth = smooth.reshape(*smooth.shape[:2], -1)[:height, :width]
    return np.asarray(np.where(known[..., None], difference, smooth), dtype=np.float32)


def _cells(image: np.ndarray, step: int) -> np.ndarray:
    """Sums over squares of `step` pixels, the last ones of what there is."""
    down, across = (np.arange(0, length, step) for length in image.shape[:2])
    return np.asarray(np.add.reduceat(np.add.reduceat(image.astype(np.float64), down, axis=0), across, axis=1))


def _solve(values: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Laplace's equation in the `hole` (h, w) of a grid of `values` (h, w, C)."""
    if not hole.any() or hole.all():
        return np.asarray(values * ~hole[..., None])
    number = np.full(hole.shape, -1)
    number[hole] = np.arange(hole.sum())
    degree, right = np.zeros(hole.sum()), np.zeros((hole.sum(), values.shape[2]))
    rows, columns = [], []
    for first, second in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        for here, there in ((first, second), (second, first)):
            inside, beside = number[here], number[there]
            own = inside >= 0
            np.add.at(degree, inside[own], 1)
            both, edge = own & (beside >= 0), own & (beside < 0)
            rows.append(inside[both])
            columns.append(beside[both])
            np.add.at(right, inside[edge], values[there][edge])
    row, column = np.concatenate(rows), np.concatenate(columns)
    size = (len(degree), len(degree))
    laplacian = scipy.sparse.diags_array(degree) - scipy.sparse.coo_array(
        (np.ones(len(row)), (row, column)), shape=size
    )
    solved = values.copy()
    solved[hole] = scipy.sparse.linalg.splu(laplacian.tocsc()).solve(right)
    return solved
