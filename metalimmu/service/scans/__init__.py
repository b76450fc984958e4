"""Scans of a fleet and what they found: reading, judging, recording, drift, waivers, outliers."""
