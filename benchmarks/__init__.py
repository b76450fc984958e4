"""What is claimed about speed, each a number measured side by side with a fair competitor: `python -m benchmarks`."""
