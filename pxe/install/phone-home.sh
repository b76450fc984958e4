#!/bin/sh
# Tells the controller once that this system is up, and on which machine. Needs curl or wget, or bash and nothing else.
url='{{ controller.phone_home }}'
instance='{{ name }}-{{ controller.deployment }}'
heard=${1:-/var/lib/metalimmu-heard}

dmi() { sed 's/%/%25/g; s/ /%20/g; s/#/%23/g; s/&/%26/g; s/+/%2B/g' "/sys/class/dmi/id/$1" 2>/dev/null; }
body="instance_id=$instance&hostname=$(cat /proc/sys/kernel/hostname)&serial=$(dmi product_serial)"

send() {
    if command -v curl >/dev/null 2>&1; then
        curl -fsSk -m 30 --data "$body" "$url"
    elif command -v wget >/dev/null 2>&1; then
        wget -q -T 30 -O - --post-data "$body" "$url"
    else
        bash -c '
            rest=${1#http://} host=${rest%%/*} path=/${rest#*/}
            case $host in *:*) ;; *) host=$host:80 ;; esac
            exec 3<>"/dev/tcp/${host%:*}/${host##*:}" || exit 1
            printf "POST %s HTTP/1.0\r\nHost: %s\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %s\r\n\r\n%s" \
                "$path" "$host" "$3" "$2" >&3
            read -r _ status _ <&3
            [ "$status" = 200 ]
        ' phone-home "$url" "$body" "$(printf %s "$body" | wc -c)"
    fi
}

until send >/dev/null; do
    sleep 5
done
echo "metalimmu: heard"
touch "$heard" 2>/dev/null || true
