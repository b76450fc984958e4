"""What is there: inventory, firmware, power, media. What drivers return and the store keeps; no I/O."""
