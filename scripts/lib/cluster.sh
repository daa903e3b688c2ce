# What scripts/cluster-test does to a cluster: images, pods of its own, counting.
# shellcheck shell=bash disable=SC2154 # namespace, full and work are set there.

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

# run_pod NAME IMAGE COMMAND...: a pod that the restricted level admits, and that a service account's token is no use to.
run_pod() {
    local name=$1 image=$2
    shift 2
    jq -n --arg name "$name" --arg image "$image" '{
        apiVersion: "v1", kind: "Pod", metadata: {name: $name},
        spec: {
            restartPolicy: "Never", automountServiceAccountToken: false, enableServiceLinks: false,
            securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: "RuntimeDefault"}},
            containers: [{
                name: "main", image: $image, imagePullPolicy: "IfNotPresent", command: $ARGS.positional,
                securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: ["ALL"]}}
            }]
        }
    }' --args -- "$@" | kube create -f - >/dev/null
    wait_until 60 "pod $name" pod_has_begun "$name"
}

pod_has_begun() { [[ $(kube get pod "$1" -o jsonpath='{.status.phase}') =~ Running|Succeeded|Failed ]]; }

# stop_pod NAME FILE: tells it to stop, and writes all that it has said.
stop_pod() {
    local name=$1 file=$2 logs
    kube logs --follow "$name" >"$file" 2>&1 &
    logs=$!
    # Only what is followed is read to its end: a pod that is gone has no logs.
    wait_until 30 "logs of $name" test -s "$file"
    kube delete pod "$name" --wait=false >/dev/null
    wait "$logs" || true
    kube wait --for=delete "pod/$name" --timeout=60s >/dev/null 2>&1 || true
}

# Prints how many orders Postgres holds.
stored_orders() { kube exec "$full-postgres-0" -- psql -U orders -Atc 'SELECT count(*) FROM orders'; }

# Prints the workers' pods that are not about to go.
workers() {
    kube get pods -l app.kubernetes.io/component=worker -o json |
        jq -r '.items[] | select(.metadata.deletionTimestamp == null) | .metadata.name'
}

# Prints how many partitions each worker has, such as `2 2 2`.
partitions() {
    local pod
    for pod in $(workers); do
        kubectl get --raw "/api/v1/namespaces/$namespace/pods/$pod:8081/proxy/metrics" |
            grep -c '^worker_consumer_lag{' || true
    done | sort -n | paste -sd ' '
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
