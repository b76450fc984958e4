#!/bin/sh
# Prints the one disk that the host's documents mean: /dev/NAME. Where none or several fit, it says so to the controller and
# waits for ever: an installer must never choose a disk by itself.
answers='{{ controller.answers }}'
want_serial='{{ (root_disk.get("serial") or "") | replace("'", "") }}'
want_wwn='{{ (root_disk.get("wwn") or "") | replace("'", "") }}'
want_model='{{ (root_disk.get("model") or "") | replace("'", "") }}'
want_min={{ root_disk.get("min_size") or 0 }}
want_max={{ root_disk.get("max_size") or 0 }}
want_rotational='{{ "" if root_disk.get("rotational") is none else root_disk.get("rotational") | int }}'
want_by_path='{{ (root_disk.get("by_path") or "") | replace("'", "") }}'
sys=${1:-/sys/class/block}

get() {
    if command -v wget >/dev/null 2>&1; then
        case $1 in https:*) wget -q --no-check-certificate -O - "$1" ;; *) wget -q -O - "$1" ;; esac
    else
        curl -fsSk "$1"
    fi
}
plain() { tr -d ' \n\000' | tr 'A-Z' 'a-z'; }
number() { plain | sed 's/^0x//; s/^naa\.//; s/^eui\.//; s/^nvme\.//'; }
first() { for file in "$@"; do [ -r "$file" ] && cat "$file" 2>/dev/null && return 0; done; }

# virtio and NVMe say it in a file; SCSI and SATA in page 0x80 of the vital product data, behind four bytes.
serial_of() {
    found=$(first "$1/serial" "$1/device/serial" | plain)
    [ -n "$found" ] || found=$(dd if="$1/device/vpd_pg80" bs=1 skip=4 2>/dev/null | plain)
    echo "$found"
}

fits() {
    [ "$(cat "$1/removable" 2>/dev/null)" = 1 ] && return 1
    [ "$(cat "$1/ro" 2>/dev/null)" = 1 ] && return 1
    size=$(($(cat "$1/size" 2>/dev/null || echo 0) * 512))
    [ "$size" -gt 0 ] && [ "$size" -ge "$want_min" ] || return 1
    [ "$want_max" = 0 ] || [ "$size" -le "$want_max" ] || return 1
    [ -z "$want_serial" ] || [ "$(serial_of "$1")" = "$(echo "$want_serial" | plain)" ] || return 1
    [ -z "$want_wwn" ] || [ "$(first "$1/wwid" "$1/device/wwid" | number)" = "$(echo "$want_wwn" | number)" ] || return 1
    [ -z "$want_model" ] || [ "$(first "$1/device/model" | plain)" = "$(echo "$want_model" | plain)" ] || return 1
    [ -z "$want_rotational" ] || [ "$(cat "$1/queue/rotational" 2>/dev/null)" = "$want_rotational" ] || return 1
    [ -z "$want_by_path" ] || [ "$(readlink -f "/dev/disk/by-path/${want_by_path##*/}")" = "/dev/${1##*/}" ] || return 1
}

fitting= seen=
for disk in "$sys"/*; do
    case ${disk##*/} in loop* | ram* | zram* | sr* | fd* | md* | dm-*) continue ;; esac
    [ -e "$disk/partition" ] && continue
    seen="$seen ${disk##*/}($(serial_of "$disk"))"
    fits "$disk" && fitting="$fitting ${disk##*/}"
done
# shellcheck disable=SC2086
set -- $fitting
[ "$#" = 1 ] && echo "/dev/$1" && exit 0

why="$# disks fit root_disk ($fitting ), of:$seen"
echo "metalimmu: $why" >&2
until get "${answers}say/failed?why=$(echo "$why" | sed 's/%/%25/g; s/ /%20/g; s/#/%23/g; s/&/%26/g; s/+/%2B/g')" >/dev/null 2>&1; do
    sleep 5
done
while :; do sleep 3600; done
