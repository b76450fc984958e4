"""A rack without hardware: a Redfish emulator in front of QEMU machines, and simulated machines for fakes."""
