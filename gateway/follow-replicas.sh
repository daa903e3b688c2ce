#!/bin/sh
# Writes the list of api replicas to /tmp/replicas.conf and reloads nginx when the list changes. Checks once a second. The
# image's entrypoint starts this script before nginx. A new replica is listed once it is ready. On a reload nginx finishes
# requests in flight and closes idle connections, which HTTP clients reopen. nginx 1.27.3 and later can follow Docker's DNS
# itself (`server api:8080 resolve`), but would send requests to replicas that are not ready.
set -eu

# replicas: prints the address of each running replica.
replicas() { getent ahostsv4 api | awk '{ print $1 }' | sort -u; }

# ready ADDRESS...: prints the addresses to list: replicas that are ready, and listed replicas that do not respond. nginx
# skips the latter itself, so a short stall causes no reload. If none is left, prints all addresses, so that clients get the
# api's own errors.
ready() {
    arguments=
    for address in "$@"; do
        arguments="$arguments -o /dev/null http://$address:8081/readyz"
    done
    # shellcheck disable=SC2086 # words
    chosen=$(curl --parallel --noproxy '*' -s --max-time 1 -w '%{url_effective} %{http_code}\n' $arguments |
        awk -F '[/: ]+' -v listed=" $listed " '$NF == 200 || ($NF == 0 && index(listed, " " $2 " ")) { print $2 }' | sort)
    # shellcheck disable=SC2086 # words
    echo ${chosen:-$*}
}

# list ADDRESS...: writes the list for nginx.
list() {
    for address in "$@"; do
        echo "server $address:8080 max_fails=1 fail_timeout=1s;"
    done >/tmp/replicas.conf.new
    mv /tmp/replicas.conf.new /tmp/replicas.conf
}

follow() {
    while sleep 1; do
        running=$(replicas)
        # No address: no replica runs, or the DNS is down. Keep the list.
        [ -n "$running" ] || continue
        # shellcheck disable=SC2086 # words
        now=$(ready $running)
        # shellcheck disable=SC2086 # words
        if [ "$now" != "$listed" ] && list $now && nginx -s reload; then
            listed=$now
        fi
    done
}

until running=$(replicas) && [ -n "$running" ]; do
    sleep 1
done
# shellcheck disable=SC2086,SC2116 # words on one line
listed=$(echo $running)
# shellcheck disable=SC2086 # words
list $listed
follow &
