"""Pixels alone: background, noise, widths, cutouts, trails; nothing of the sky, of headers or files.

May import the ground.
"""
