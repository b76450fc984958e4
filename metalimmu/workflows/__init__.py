"""Steps, in order: what a reimage does."""
