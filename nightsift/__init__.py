"""Vetted transients and light curves from campaigns of FITS images."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("nightsift")
except PackageNotFoundError:  # run from its folder, without `make setup`
    __version__ = "0+unknown"
