#!/bin/sh
# An ONIE installer of the lab's NOS: this head, then a tar. Runs in ONIE, and in the NOS itself (sonic-installer).
image_version="@VERSION@"
payload_sha1="@SHA1@"
platforms="@PLATFORMS@"
payload_bytes=@BYTES@

fail() {
    echo "lab-nos installer: $*"
    exit 1
}
me=$(readlink -f "$0")
payload() { tail -c "$payload_bytes" "$me"; }
echo "Verifying image checksum ..."
[ "$(payload | sha1sum | cut -d' ' -f1)" = "$payload_sha1" ] || fail "the checksum of the payload is wrong"

if [ -d /host/grub ]; then
    where=nos
    . /host/machine.conf
else
    where=onie
    . /etc/machine.conf
fi
known=
for pattern in $platforms; do
    case "$onie_platform" in $pattern) known=1 ;; esac
done
if [ -z "$known" ]; then
    # SONiC's own installer asks, and waits for ever where nobody answers.
    printf 'The platform %s is not in this image. Install anyway? [y/N] ' "$onie_platform"
    read -r answer
    [ "$answer" = y ] || fail "not installed"
fi
if [ "$where" = onie ]; then
    device=$(findfs LABEL=LAB-NOS 2>/dev/null) || device=/dev/vda3
    umount "$device" 2>/dev/null
    echo "Installing lab-nos $image_version on $device ..."
    mke2fs -F -L LAB-NOS "$device" >/dev/null || fail "no file system on $device"
    mkdir -p /host
    mount -t ext4 "$device" /host || fail "$device cannot be mounted"
    cp /etc/machine.conf /host/machine.conf
fi
target=/host/image-$image_version
rm -rf "$target.new"
mkdir -p "$target.new"
payload | tar -x -C "$target.new" || fail "the payload cannot be unpacked"
mv "$target.new" "$target"
if [ "$where" = onie ]; then
    mkdir -p /host/grub
    grub-editenv /host/grub/grubenv create
    grub-editenv /host/grub/grubenv set "saved_entry=$image_version"
    sync
    mv "$target/grub.cfg" /host/grub/grub.cfg # the last: without it ONIE starts again
    onie-nos-mode -s
    sync
    umount /host
fi
echo "Installed lab-nos $image_version."
exit 0
