"""Vetted transients and light curves from campaigns of FITS images."""

__version__ = "0.1.0"
