"""Stage `template`: a template on the pixels of an image.

May import the ground, `image`, `sky`, `header`, `inspect`, `detect` and `astrometry`.
"""
