# Cluster operations of scripts/cluster-test: load images, run pods, count orders.
# shellcheck shell=bash disable=SC2154 # namespace, release, full and shell_image are set there.

kube() { kubectl --namespace "$namespace" "$@"; }

# wait_until SECONDS WHAT COMMAND...: repeats the command until it succeeds.
wait_until() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || die "timed out: $what"
        sleep 0.5
    done
}

# load_images IMAGE...: loads the images onto the nodes.
load_images() {
    local context
    context=$(kubectl config current-context 2>/dev/null || true)
    if [[ -n ${CLUSTER_LOAD_IMAGES:-} ]]; then
        # A command with arguments, split on purpose.
        # shellcheck disable=SC2086
        $CLUSTER_LOAD_IMAGES "$@"
    elif have kind && [[ $context == kind-* ]]; then
        kind load docker-image --name "${context#kind-}" "$@"
    else
        echo "CLUSTER_LOAD_IMAGES is not set and this is not a kind cluster: its nodes must have or pull these images: $*"
    fi
}

# run_pod NAME IMAGE COMMAND...: starts a pod that the restricted level admits. A second container with a shell can signal the
# command: our images have no shell, and deleting the pod would lose the last lines of its log.
run_pod() {
    local name=$1 image=$2
    shift 2
    jq -n --arg name "$name" --arg image "$image" --arg shell "$shell_image" '
        {allowPrivilegeEscalation: false, capabilities: {drop: ["ALL"]}} as $security
        | {
            apiVersion: "v1", kind: "Pod", metadata: {name: $name},
            spec: {
                restartPolicy: "Never", automountServiceAccountToken: false, enableServiceLinks: false,
                shareProcessNamespace: true, terminationGracePeriodSeconds: 1,
                securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: "RuntimeDefault"}},
                containers: [
                    {name: "main", image: $image, command: $ARGS.positional},
                    {name: "shell", image: $shell, command: ["sleep", "infinity"]}
                ] | map(. + {imagePullPolicy: "IfNotPresent", securityContext: $security})
            }
        }' --args -- "$@" | kube create -f - >/dev/null
    wait_until 60 "pod $name" pod_runs "$name"
}
pod_runs() { [[ $(kube get pod "$1" -o jsonpath='{.status.containerStatuses[*].ready}') == 'true true' ]]; }

# stop_pod NAME PROGRAM FILE: sends SIGTERM to the program in the pod, waits until it ends, and writes its log to FILE.
stop_pod() {
    local name=$1 program=$2 file=$3
    # The variables are those of the shell in the pod.
    # shellcheck disable=SC2016
    kube exec "$name" --container shell -- bash -c '
        for process in /proc/[0-9]*; do
            read -r -d "" word <"$process/cmdline" || true
            [[ $word != "$0" || ${process#/proc/} == $$ ]] || kill -TERM "${process#/proc/}"
        done' "$program"
    wait_until 60 "end of $name" pod_has_ended "$name"
    kube logs "$name" --container main >"$file"
    kube delete pod "$name" --wait >/dev/null
}
pod_has_ended() {
    [[ -n $(kube get pod "$1" -o jsonpath='{.status.containerStatuses[?(@.name=="main")].state.terminated.reason}') ]]
}

# Prints the number of orders in Postgres.
stored_orders() { kube exec "$full-postgres-0" -- psql -U orders -Atc 'SELECT count(*) FROM orders'; }

# pods ROLE: prints the release's pods of this role that are not stopping.
pods() {
    kube get pods -l "app.kubernetes.io/instance=$release,app.kubernetes.io/component=$1" -o json |
        jq -r '.items[] | select(.metadata.deletionTimestamp == null) | .metadata.name'
}

# Prints the number of partitions of each group member according to Kafka, for example `2 2 2`.
partitions() {
    kube exec "$full-kafka-0" -- env KAFKA_HEAP_OPTS=-Xmx128m /opt/kafka/bin/kafka-consumer-groups.sh \
        --bootstrap-server localhost:9092 --describe --members --group order-worker |
        awk '$1 == "order-worker" { print $NF }' | sort -n | paste -sd ' '
}

partitions_are() { [[ $(partitions) == "$1" ]]; }

# Prints all objects of the namespace except events and pod metrics.
objects() {
    local kinds
    kinds=$(kubectl api-resources --namespaced --verbs=list --output=name | grep -vE '^events|metrics\.k8s\.io$' | paste -sd ,)
    kube get "$kinds" --ignore-not-found -o name | sort -u
}

# forward PORT TARGET REMOTE: forwards a local port to a pod or Service; `stop_forwards` closes all.
forwards=()
forward() {
    kube port-forward "$2" "$1:$3" >>"$work/port-forward.log" 2>&1 &
    forwards+=($!)
    wait_until 30 "port-forward to $2" port_answers "$1"
}
port_answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
stop_forwards() {
    ((${#forwards[@]} == 0)) || kill "${forwards[@]}" 2>/dev/null || true
    forwards=()
}
