"""The sky's archives: what services know of a piece of sky, asked once and kept.

Only the rules ``fetch_*`` use what is in here. `http` has the manners of every request, `cache` keeps the answers,
`library` joins the two; `votable` and `vizier` are the language of one service, `cells` cuts the sky into the pieces
that are asked for, and `surveys` says what the catalogues hold. `pictures` has the images that templates are made of:
`skycells` of Pan-STARRS, `bricks` of the Legacy Surveys, and what `hips` gives of others.
"""
