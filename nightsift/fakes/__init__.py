"""Stage `fakes`: sources put into an image, and what the search finds of them.

May import the ground, `image`, `sky`, `psf`, and the doors of `subtract` and `transients`.
"""
