"""What we want: the site's documents as typed structs. `resolve` is the only place where overrides combine."""
