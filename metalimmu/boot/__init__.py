"""Serve a booting machine: media, manifests, chunks, check-in."""
