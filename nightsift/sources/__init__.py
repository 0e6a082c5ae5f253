"""Stage `sources`: the candidates of a campaign joined into sources with light curves.

May import the ground, `image`, `sky`, of `psf` the PSF and photometry with it, and of `transients` the model card.
"""
