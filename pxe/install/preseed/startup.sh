#!/bin/sh
# Debian's installer takes any URL that DHCP names as a boot file for answers of its own, before those that it was told by
# `url=`, and stops where it is something else (network-preseed.postinst). Machines that boot by HTTP are given such URLs.
sed -i '/filename "/d' /etc/udhcpc/default.script
