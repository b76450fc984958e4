"""What controller and agent say to each other: manifest, check-in, progress. Standard library only."""
