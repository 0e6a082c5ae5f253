"""Files: reading what users give and writing what they get. Nothing here knows any astronomy.

May import the ground and `header`; no stage imports it.
"""
