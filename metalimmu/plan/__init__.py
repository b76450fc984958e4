"""The difference between desired and observed, and what to do about it: pure functions, data in, data out."""
