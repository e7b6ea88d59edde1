# How Sphinx builds the documentation: `make docs`. It needs sphinx, lonc itself and no network.

import lonc

project = "lonc"
author = "the lonc developers"
version = release = lonc.__version__

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
# An option's two dashes are two dashes.
smartquotes = False

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"

html_theme = "alabaster"
html_theme_options = {
    "description": "The local concentrator of lond connections for LON-CAPA",
    "page_width": "1100px",
    "fixed_sidebar": True,
}
html_show_copyright = False
html_copy_source = False
