"""Stage `uncatalogued`: the objects of an image that no catalogue star explains.

May import the ground, `image`, `sky`, `photometry` and `psf`.
"""
