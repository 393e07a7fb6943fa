"""diffusers, imported without the packages that it would import beside itself.

It imports transformers and peft wherever they are installed: 2.5 s of every stage's start, for
loaders that nothing here calls. What needs these packages imports them itself.
"""

import sys

UNUSED = ("peft", "transformers")  # by anything that this project takes from diffusers

_hidden = [name for name in UNUSED if name not in sys.modules]
# diffusers looks once, at its import, for what is there; None in sys.modules is Python's own
# word for a module that cannot be imported.
sys.modules.update(dict.fromkeys(_hidden))  # type: ignore[arg-type]  # None is allowed there
try:
    import diffusers.models.modeling_utils  # under every network, and it imports them too
finally:
    for name in _hidden:
        del sys.modules[name]

__all__ = ["diffusers"]
