# Configuration of Sphinx for `make docs`. It requires sphinx and lonc, but no network.

from docutils.parsers.rst import Directive

import lonc
from lonc.config.settings import PARAMETERS

project = "lonc"
author = "the lonc developers"
version = release = lonc.__version__

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
# Keep the two dashes of options.
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


class SettingDirective(Directive):
    """``.. setting:: NAME``: the description of a setting."""

    required_arguments = 1

    def run(self):
        (found,) = [each for each in PARAMETERS if each.variable == self.arguments[0]]
        default = "none, it has to be set" if found.default is None else f"``{found.default}``"
        lines = [
            f"{found.what}.",
            "",
            f":Option: {f'``--{found.option}``' if found.option else 'none'}",
            f":Unit: {found.kind.unit}",
            f":Default: {default}",
            f":Allowed: {found.kind.allowed}",
            f":Why: {found.why}",
            "",
        ]
        self.state_machine.insert_input(lines, "lonc/config/parameters.py")
        return []


def setup(app):
    app.add_directive("setting", SettingDirective)
