"""Stage `astrometry`: match the objects with the catalogue and fit the plate solution.

May import the ground, `image` and `sky`.
"""
