"""Back-up and restore of a controller: databases, keys, catalogue, and what documents say that is not in git yet."""
