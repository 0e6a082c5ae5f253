"""Stage `detect`: find the objects of an image, and measure them in an aperture.

May import the ground, `image` and `sky`.
"""
