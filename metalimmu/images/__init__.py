"""Immutable images: build, import, chunks, verify, catalogue; and the ramdisk that writes them."""
