"""metalimmu: reimage physical machines from immutable images, and prove it."""

__version__ = "0.1.0"
