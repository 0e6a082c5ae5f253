"""The sphere and its projections; nothing of pixels' values, headers or files.

May import the ground.
"""
