"""Stage `sources`: the candidates of a campaign joined into sources with light curves.

May import the ground, `image`, `sky`, and `psf`, `photometry` and `transients` for what is measured at its places.
"""
