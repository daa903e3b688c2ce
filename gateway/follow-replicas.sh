#!/bin/sh
# Started by the image's entrypoint before nginx. nginx looks up the addresses of `api` when it reads its configuration,
# and not again; so it is told to read it again within a second after Docker's DNS lists other replicas. Requests under way
# are answered; connections that idle are closed, upon which HTTP clients open new ones. From nginx 1.27.3 on,
# `server api:8080 resolve` could do without; this works with every version.
set -eu

replicas() { getent ahostsv4 api | awk '{ print $1 }' | sort -u; }

follow() {
    known=$1
    while sleep 1; do
        now=$(replicas)
        # No answer at all: none runs, or the DNS is gone. The old addresses are as good as none.
        if [ -n "$now" ] && [ "$now" != "$known" ] && nginx -s reload; then
            known=$now
        fi
    done
}

follow "$(replicas)" &
