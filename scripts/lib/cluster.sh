# What scripts/cluster-test does to a cluster: images, pods of its own, counting.
# shellcheck shell=bash disable=SC2154 # namespace, release, full and shell_image are set there.

kube() { kubectl --namespace "$namespace" "$@"; }

# wait_until SECONDS WHAT COMMAND...: repeats the command until it succeeds.
wait_until() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || die "$what: not within the time allowed"
        sleep 0.5
    done
}

# load_images IMAGE...: brings them to the nodes, in whatever way this cluster takes them.
load_images() {
    local context
    context=$(kubectl config current-context 2>/dev/null || true)
    if [[ -n ${CLUSTER_LOAD_IMAGES:-} ]]; then
        # Words of a command, meant to be split.
        # shellcheck disable=SC2086
        $CLUSTER_LOAD_IMAGES "$@"
    elif have kind && [[ $context == kind-* ]]; then
        kind load docker-image --name "${context#kind-}" "$@"
    else
        echo "CLUSTER_LOAD_IMAGES is not set and this is no kind cluster: its nodes must have these images or pull them: $*"
    fi
}

# run_pod NAME IMAGE COMMAND...: a pod that the restricted level admits. Beside the command stands a shell that can signal it,
# for there is none in our images, and with a pod that is deleted its last words are lost.
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

# stop_pod NAME PROGRAM FILE: tells this program in it to stop, waits until it has, and writes what it has said.
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

# Prints how many orders Postgres holds.
stored_orders() { kube exec "$full-postgres-0" -- psql -U orders -Atc 'SELECT count(*) FROM orders'; }

# pods ROLE: prints the release's pods of this role that are not about to go.
pods() {
    kube get pods -l "app.kubernetes.io/instance=$release,app.kubernetes.io/component=$1" -o json |
        jq -r '.items[] | select(.metadata.deletionTimestamp == null) | .metadata.name'
}

# Prints how many partitions each member of the group has, such as `2 2 2`, as Kafka sees it.
partitions() {
    kube exec "$full-kafka-0" -- env KAFKA_HEAP_OPTS=-Xmx128m /opt/kafka/bin/kafka-consumer-groups.sh \
        --bootstrap-server localhost:9092 --describe --members --group order-worker |
        awk '$1 == "order-worker" { print $NF }' | sort -n | paste -sd ' '
}

partitions_are() { [[ $(partitions) == "$1" ]]; }

# Everything of the namespace but what comes and goes by itself.
objects() {
    local kinds
    kinds=$(kubectl api-resources --namespaced --verbs=list --output=name | grep -vE '^events|metrics\.k8s\.io$' | paste -sd ,)
    kube get "$kinds" --ignore-not-found -o name | sort -u
}

# forward PORT TARGET REMOTE: opens a port of this machine to a pod or Service; `stop_forwards` closes all.
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
