"""Programs of others: how they are called, and what they answer.

May import the ground, `io`, and the stages whose work they do; no stage imports it.
"""
