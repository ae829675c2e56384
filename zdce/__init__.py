"""Zero-DCE: brighten dark photographs with a network that was trained without references.

``zdce.Enhancer`` brightens photographs, ``zdce.CurveNet`` is the network; all else lies in the
modules.
"""

import os
from importlib import import_module

# Threads of torch that wait shall sleep: spinning ones, beside other work on the same cores, make
# a training step ten times as slow. Read once, when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
__all__ = ["CurveNet", "Enhancer"]
_HOMES = {"CurveNet": "zdce.model", "Enhancer": "zdce.enhance"}


def __getattr__(name: str):
    """Public names on first use, so that ``zdce --help`` does not wait for torch."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'zdce' has no attribute {name!r}")
