"""Simulated campaigns of which every source is known, and what the workflow finds of them.

May import the ground, `image` and `sky`; no stage imports it.
"""
