"""Changes of text when mkdocs builds the site, so that a page needs no script and an example is shown as code."""

import re

import griffe
from latex2mathml.converter import convert

EXAMPLE = re.compile(r"^( *)>>> .+(?:\n\1.+)*", re.MULTILINE)


def to_mathml(source, language, css_class, options, md, **kwargs):
    """Return one equation in LaTeX, a block ```math, as MathML: a fence of ``pymdownx.superfences``."""
    mathml = convert(source.strip(), display="block").replace("<mi>log</mi>", '<mi>log</mi><mspace width="0.17em"/>')
    return f'<div class="math">{mathml}</div>'


def on_config(config):
    """Add the fence to the settings of mkdocs, which calls this hook."""
    fence = {"name": "math", "class": "math", "format": to_mathml}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]


class Examples(griffe.Extension):
    """Make blocks of code of the examples (``>>>``) in docstrings, which Markdown would take for quotations."""

    def on_instance(self, *, obj: griffe.Object, **kwargs) -> None:
        """Change the docstring of a module, class, function or attribute."""
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(r"\1```pycon\n\g<0>\n\1```", obj.docstring.value)
