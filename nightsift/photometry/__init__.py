"""Stage `photometry`: tie the magnitudes of an image to a catalogue.

May import the ground, `image`, `sky`, `catalog` and `psf`.
"""
