"""FITS headers: what they say, in their many spellings, of an image and its place on the sky.

May import the ground and `sky`.
"""
