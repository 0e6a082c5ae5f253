"""Stage `subtract`: the difference of an image and its template, with its noise.

May import the ground, `image`, `sky`, `psf` and, for steps of the gain, `photometry`.
"""
