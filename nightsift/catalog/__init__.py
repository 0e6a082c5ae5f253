"""Stage `catalog`: the stars of known position and magnitude in the field of an image.

May import the ground, `image` and `sky`.
"""
