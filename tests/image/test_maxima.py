"""Maxima over windows are those of SciPy."""

import numpy as np
import pytest
from scipy import ndimage

from nightsift.image.maxima import maxima


@pytest.mark.parametrize("shape", [(61, 80), (5, 70), (70, 3)])
@pytest.mark.parametrize("side", [1, 3, 5, 9, 21, 37])
def test_maxima_are_those_of_scipy(shape, side):
    image = np.random.default_rng(side).normal(size=shape).astype(np.float32)
    for one in (image, image > 2):
        assert np.array_equal(maxima(one, side), ndimage.maximum_filter(one, side))
