"""Stage `inspect`: what an image's header says, checked against its pixels, and the mask of its bad pixels.

May import the ground, `image`, `sky` and `header`.
"""
