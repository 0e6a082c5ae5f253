"""Stage `plots`: the figures of an image.

May import the ground, `image`, `sky` and the stages whose results it draws.
"""
