"""Stage `report`: the campaign's page.

May import the ground, `image`, `sky`, `plots` and the stages whose results it shows.
"""
