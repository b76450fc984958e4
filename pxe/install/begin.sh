#!/bin/sh
# Run by an installer before it touches a disk: the controller says whether this is the machine that it means. Until it
# does, nothing goes on. A refusal stays one: it is for a person to look at.
answers='{{ controller.answers }}'

get() {
    if command -v wget >/dev/null 2>&1; then
        case $1 in https:*) wget -q --no-check-certificate -O - "$1" ;; *) wget -q -O - "$1" ;; esac
    else
        curl -fsSk "$1"
    fi
}
dmi() { sed 's/%/%25/g; s/ /%20/g; s/#/%23/g; s/&/%26/g; s/+/%2B/g; s/?/%3F/g' "/sys/class/dmi/id/$1" 2>/dev/null; }

until get "${answers}say/begin?serial=$(dmi product_serial)&uuid=$(dmi product_uuid)" >/dev/null 2>&1; do
    echo "metalimmu: the controller does not let this machine be installed; asking again" >&2
    sleep 5
done
echo "metalimmu: this is {{ name }}" >&2
