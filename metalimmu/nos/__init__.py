"""Talk to the network operating system of a switch, over SSH."""
