"""Runs inside the ramdisk, as root, on the machine being written. Standard library and python3-zstandard only."""
