# Sends orders through a running system and shows the outcome. Needs common.sh, and these from the calling script:
#   worker_metrics   array: the /metrics address of every worker
#   replicas         array: the address of every api replica
#   producer         function: runs the producer
#   fetch            function: runs curl where these addresses are reachable
# shellcheck shell=bash disable=SC2154

valid_and_invalid=3600
invalid_json=20
gibberish=20

# read_metrics FILE: writes the samples of all workers to one file.
read_metrics() { fetch -fsS --max-time 5 "${worker_metrics[@]}" >"$1"; }

# total FILE METRIC [LABEL]: prints the sum of a metric over all workers; with LABEL (`outcome="stored"`) only of those samples.
total() {
    awk -v metric="$2" -v label="${3:-}" '
        (index($1, metric "{") == 1 || $1 == metric) && (label == "" || index($0, label)) { sum += $NF }
        END { printf "%d\n", sum }' "$1"
}

# gained METRIC [LABEL]: prints its growth since the orders were sent.
gained() { echo $(($(total "$after" "$@") - $(total "$before" "$@"))); }

# reasons: prints the reasons of dead letters, one per line.
reasons() {
    sed -n 's/^dead_letter_messages_total{.*reason="\([^"]*\)".*/\1/p' "$after" | sort -u
}

# settle: waits until the workers have processed the records of earlier runs: no lag, and for three seconds no finished
# record and no moved partition.
settle() {
    local deadline=$((SECONDS + 120)) since=$SECONDS seen='' now
    until ((SECONDS - since >= 3)); do
        ((SECONDS < deadline)) || die "the workers still have a lag of $(total "$before" worker_consumer_lag) earlier records"
        read_metrics "$before"
        now=$(grep -E '^worker_(messages_total|consumer_lag)' "$before" || true)
        if [[ $now != "$seen" || $now != *worker_consumer_lag* || $(total "$before" worker_consumer_lag) != 0 ]]; then
            seen=$now
            since=$SECONDS
        fi
        sleep 0.2
    done
}

# follow: waits until every sent record is finished and the workers have no lag; fails after the deadline.
follow() {
    local deadline=$((SECONDS + 120))
    until read_metrics "$after" && (($(gained worker_messages_total) >= sent)) &&
        (($(total "$after" worker_consumer_lag) == 0)); do
        ((SECONDS < deadline)) || return 1
        sleep 0.2
    done
}

row() { printf '%-22s %6d\n' "$1" "$2"; }

# demonstrate FOLDER: sends orders and prints the outcome. FOLDER holds the generated orders and the samples.
demonstrate() {
    local before=$1/before.prom after=$1/after.prom orders=$1/orders.json
    local seed=${SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')} sent stored dead reason count
    settle
    echo "generating $valid_and_invalid orders, 10 % of them invalid, with seed $seed"
    producer generate -n "$valid_and_invalid" --invalid-rate 0.1 --seed "$seed" -o "$orders"
    producer send --file "$orders" --invalid-json "$invalid_json" --gibberish "$gibberish"
    sent=$((valid_and_invalid + invalid_json + gibberish))
    # After the deadline the table shows what is missing.
    follow || true

    stored=$(gained worker_messages_total 'outcome="stored"')
    dead=$(gained dead_letter_messages_total)
    echo
    row sent "$sent"
    row stored "$stored"
    row dead-lettered "$dead"
    for reason in $(reasons); do
        count=$(gained dead_letter_messages_total "reason=\"$reason\"")
        ((count == 0)) || row "  $reason" "$count"
    done
    row lag "$(total "$after" worker_consumer_lag)"
    echo
    (($(total "$after" worker_consumer_lag) == 0)) || die "the workers have not finished"
    ((stored + dead == sent)) || die "stored + dead-lettered is $((stored + dead)), but $sent were sent"
    echo "every record is accounted for: stored + dead-lettered = sent"
    echo
    fetch_one "$orders"
}

# ask REPLICA UID: fetches an order and prints status, source, milliseconds and ETag.
ask() {
    fetch -sS --max-time 10 -o /dev/null -D - "$1/order/$2" | tr -d '\r' | awk '
        NR == 1 { status = $2 }
        { name = tolower($1) }
        name == "x-source:" { source = $2 }
        name == "x-duration-ms:" { duration = $2 }
        name == "etag:" { etag = $2 }
        END { print status, source, duration, etag }'
}

# fetch_one FILE: reads the first stored order of the file, twice from every replica. Sets uid and etag for the caller.
# shellcheck disable=SC2034
fetch_one() {
    local replica turn status='' source duration
    while [[ $status != 200 ]] && read -r uid; do
        read -r status source duration etag < <(ask "${replicas[0]}" "$uid")
    done < <(jq -r '.[].order_uid | strings | select(test("^[A-Za-z0-9_-]{1,64}$"))' "$1")
    [[ $status == 200 ]] || die "none of the orders in $1 can be read from ${replicas[0]}"

    echo "order $uid"
    for replica in "${replicas[@]}"; do
        for turn in 1 2; do
            # The loop above already made the first request.
            [[ $replica == "${replicas[0]}" && $turn == 1 ]] ||
                read -r status source duration etag < <(ask "$replica" "$uid")
            printf '  %-22s  %s  X-Source: %-8s  X-Duration-Ms: %s\n' "$replica" "$status" "$source" "$duration"
            [[ $status == 200 ]] || die "$replica returned $status for an order that ${replicas[0]} has"
        done
    done
    echo
}
