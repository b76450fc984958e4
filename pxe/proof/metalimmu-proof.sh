#!/bin/sh
# The new system's own word, for images without Python: busybox sh and openssl.
#   metalimmu-proof.sh SEED [ROOT]     SEED: the mounted seed with metalimmu.json; ROOT: for tests
# Ends when the controller has acknowledged and wants no repetition, or at once when there is no metalimmu.json.
# OpenSSL is told to trust exactly the seed's certificate. That is the pin: neither its dates (clocks of bare
# machines are wrong) nor its name add anything to it.
seed=$1
root=${2:-}
json="$seed/metalimmu.json"
[ -r "$json" ] || exit 0

field() { tr -d '\n' <"$json" | sed -n 's/.*"'"$1"'" *: *"\([^"]*\)".*/\1/p'; }
clean() { tr -cd ' !#-[]-~' | sed 's/^ *//; s/ *$//'; } # printable ASCII without " and \, so that it is JSON as it stands
first() { head -n 1 "$root$1" 2>/dev/null | clean; }
release() { sed -n "s/^$1=//p" "$root/etc/os-release" 2>/dev/null | head -n 1 | tr -d "\"'" | clean; }

url=$(field url)
token=$(field token)
[ -n "$url" ] && [ -n "$token" ] || exit 0
case $url in
https://*) ;;
*) echo "metalimmu-proof: the seed's url is not https://" && exit 1 ;;
esac
address=${url#https://}
base=/${address#*/}
case $address in */*) ;; *) base=/ ;; esac
base=${base%/}
address=${address%%/*}
case $address in
\[*\]) address=$address:443 ;;
*:[0-9]*) ;;
*) address=$address:443 ;;
esac

certificate=$(mktemp) || exit 1
trap 'rm -f "$certificate"' EXIT
printf '%b\n' "$(field certificate)" >"$certificate"

# Linux's software RAID that runs: "md127 raid1".
arrays() { sed -n 's/^\(md[^ ]*\) : active .*\(raid[0-9]*\) .*/\1 \2/p' "$root/proc/mdstat" 2>/dev/null | tr '\n' ',' | sed 's/,$//' | clean; }

body=$(printf '{"image_id":"%s","image_version":"%s","build_id":"%s","serial":"%s","uuid":"%s","boot_id":"%s","config_digest":"%s","arrays":"%s"}' \
    "$(release IMAGE_ID)" "$(release IMAGE_VERSION)" "$(release BUILD_ID)" \
    "$(first /sys/class/dmi/id/product_serial)" "$(first /sys/class/dmi/id/product_uuid | tr 'A-F' 'a-f')" \
    "$(first /proc/sys/kernel/random/boot_id)" "$(field config_digest)" "$(arrays)")

ask() {
    printf 'POST %s/v1/system HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %s\r\nConnection: close\r\n\r\n%s' \
        "$base" "$address" "$token" "${#body}" "$body" |
        timeout 30 openssl s_client -quiet -connect "$address" -CAfile "$certificate" -no-CApath -no-CAstore \
            -verify_return_error -no_check_time 2>/dev/null
}

pause=2
while :; do
    answer=$(ask | head -c 65536)
    case $answer in
    HTTP/1.?\ 200\ *)
        if printf '%s' "$answer" | grep -q '"acknowledged" *: *true'; then
            echo "metalimmu-proof: acknowledged"
            break
        fi
        ;;
    esac
    echo "metalimmu-proof: not acknowledged: $(printf '%s' "$answer" | head -n 1 | clean); asking again"
    sleep "$pause"
    [ "$pause" -ge 15 ] || pause=$((pause + 1))
done

# Again at the interval that the controller asked for, so that `metalimmu prove` has an answer.
again=$(printf '%s' "$answer" | sed -n 's/.*"again" *: *\([0-9]*\).*/\1/p')
while [ "${again:-0}" -gt 0 ]; do
    sleep "$again"
    ask >/dev/null
done
