"""The seam of what is filled in: how the offset inside a hole follows from what is known around it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dfi_server.photo.membrane import membrane


@given(
    st.tuples(st.integers(20, 60), st.integers(20, 60)),
    st.tuples(*[st.floats(-1, 1)] * 3),
    st.randoms(use_true_random=False),
)
def test_a_slope_goes_on_through_the_hole(size: tuple[int, int], plane: tuple[float, float, float], random) -> None:
    height, width = size
    y, x = np.mgrid[:height, :width]
    slope = (plane[0] + plane[1] * x / width + plane[2] * y / height)[..., None].repeat(3, axis=2)
    known = np.ones(size, bool)
    for _ in range(3):
        top, left = random.randint(1, height - 8), random.randint(1, width - 8)
        known[top : top + random.randint(1, 6), left : left + random.randint(1, 6)] = False
    hidden = np.where(known[..., None], slope, 99.0)
    np.testing.assert_allclose(membrane(hidden, known), slope, atol=1e-4)


def test_inside_there_is_nothing_beyond_what_is_around() -> None:
    rng = np.random.default_rng(0)
    difference = rng.uniform(-0.3, 0.5, (700, 500, 1))  # so large that it is solved on a coarser grid
    known = np.ones((700, 500), bool)
    known[100:640, :300] = False  # at the picture's border as well
    result = membrane(difference, known)
    np.testing.assert_allclose(result[known], difference[known], atol=1e-6)
    assert result[~known].min() >= -0.3 and result[~known].max() <= 0.5
    assert abs(float(result[300:400, 100:150].mean()) - 0.1) < 0.1
