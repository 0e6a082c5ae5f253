"""Public archives of catalogues and images: what is asked of them, and what they answer.

May import the ground, `sky`, `header`, `io` and `template.mosaic`; no stage imports it.
"""
