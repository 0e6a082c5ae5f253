"""Stage `transients`: the candidates of a difference, and which of them are real.

May import the ground, `image`, `sky`, `psf` and `subtract.difference`.
"""
