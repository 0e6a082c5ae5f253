"""All that knows of jobs: the frame of a stage's script, configuration, code version, warm process.

May import everything; nothing but scripts and rules imports it.
"""
