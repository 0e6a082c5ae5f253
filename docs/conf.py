"""What Sphinx makes of these pages; `make docs` calls it."""

import sys
from pathlib import Path

from docutils.utils.math.latex2mathml import tex2mathml

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import rooms  # noqa: E402

import nightsift  # noqa: E402

project = "nightsift"
author = "nightsift developers"
version = release = nightsift.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_*"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"nightsift {nightsift.__version__}"
html_math_renderer = "mathml"
html_show_copyright = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = False
napoleon_use_ivar = True
default_role = "py:obj"

# The picture of the rooms follows from the imports, so it is drawn whenever the pages are made.
rooms.write(HERE.parent / "build" / "rooms")


def _math(block):
    def visit(translator, node):
        from docutils.nodes import SkipNode

        text = tex2mathml(node.astext(), as_block=block)
        translator.body.append(f'<div class="equation">{text}</div>' if block else text)
        raise SkipNode

    return visit, None


def setup(app):
    # As part of the pages: neither LaTeX is needed to make them, nor another host to read them.
    app.add_html_math_renderer("mathml", inline_renderers=_math(False), block_renderers=_math(True))
