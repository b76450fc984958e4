"""Memory: runs, steps, proofs, leases, observations."""
