"""Stage `psf`: the PSF of an image, and photometry with it.

May import the ground, `image` and `sky`.
"""
