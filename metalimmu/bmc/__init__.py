"""Talk to BMCs: ports by capability, drivers named by the address's scheme."""
