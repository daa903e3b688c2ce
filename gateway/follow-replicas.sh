#!/bin/sh
# Lists the api replicas for nginx, in /tmp/replicas.conf, and reloads nginx within a second after the list changes. The image's
# entrypoint starts this before nginx. A new replica is listed once it is ready. On a reload nginx answers requests in flight
# and closes idle connections, which HTTP clients reopen. From 1.27.3 on, `server api:8080 resolve` also follows Docker's DNS,
# but sends requests to replicas that are not ready yet.
set -eu

# replicas: the address of each running replica.
replicas() { getent ahostsv4 api | awk '{ print $1 }' | sort -u; }

# ready ADDRESS...: those that are ready, and those already listed that do not answer: nginx skips them by itself, and a short
# stall is no reason for a reload. All of them where this leaves none, so that the api's own errors reach the client.
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

# list ADDRESS...
list() {
    for address in "$@"; do
        echo "server $address:8080 max_fails=1 fail_timeout=1s;"
    done >/tmp/replicas.conf.new
    mv /tmp/replicas.conf.new /tmp/replicas.conf
}

follow() {
    while sleep 1; do
        running=$(replicas)
        # Without an answer no replica runs, or the DNS is gone: the list stays.
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
