"""Zero-DCE: brighten dark photographs with a network that was trained without references."""

__version__ = "0.1.0"
