"""Machines that nobody has described yet: discovery, imports, and the census of what their BMCs can do."""
