# Tests of single objects that the chart renders, for scripts/chart-test.
# shellcheck shell=bash disable=SC2154,SC2016 # chart, kubernetes and work are set there; jq reads the quoted variables.

# objects FILE: prints the objects of a rendering as one JSON list. Helm converts them, so that its own reading of YAML counts.
objects() {
    local folder=$work/objects
    mkdir -p "$folder/templates"
    printf 'apiVersion: v2\nname: objects\nversion: 0.0.0\n' >"$folder/Chart.yaml"
    cp "$1" "$folder/objects.yaml"
    cat >"$folder/templates/json.yaml" <<'TEMPLATE'
{{- $all := list }}
{{- range splitList "\n---\n" (print "\n" (.Files.Get "objects.yaml")) }}
{{- with fromYaml . }}{{ $all = append $all . }}{{ end }}
{{- end }}
{{ dict "objects" $all | toJson }}
TEMPLATE
    helm template objects "$folder" | grep '^{' | jq -c .objects
}

# rendered VALUES [OPTION...]: like `render`, into the list that `none` reads.
rendered() {
    render "$@" >"$work/rendered.yml" || complain "helm does not render: $*"
    objects "$work/rendered.yml" >"$work/rendered"
}

# none MESSAGE FILTER [JQ-OPTION...]: complains about each line that the jq filter prints of the objects rendered last.
none() {
    local message=$1 filter=$2 found
    shift 2
    found=$(jq -r "$@" "$jq_pods $filter" "$work/rendered") || { complain "jq: $message" && return; }
    [[ -z $found ]] || complain "$message:"$'\n'"$found"
}
# Every rendered pod: the object that creates it, its metadata, spec and component.
jq_pods='
def pods: .[]
    | select(.kind | IN("Pod", "Job", "Deployment", "StatefulSet"))
    | {object: "\(.kind)/\(.metadata.name)"} + (if .kind == "Pod" then {metadata, spec} else .spec.template end)
    | .component = (.metadata.labels["app.kubernetes.io/component"] | if IN("postgres", "redis", "kafka") then "demo" else . end);
'

# Every pod, including hooks and demo, uses the placement values; a component's own values take precedence.
placement() {
    cat >"$work/placement-values.yaml" <<'YAML'
podLabels: { team: all, cost: shop, app.kubernetes.io/part-of: shop }
podAnnotations: { sidecar.istio.io/inject: "false" }
nodeSelector: { pool: all }
tolerations: [{ key: dedicated, value: all, effect: NoSchedule }]
affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [{ matchExpressions: [{ key: pool, operator: Exists }] }] } } }
priorityClassName: all
images: { pullSecrets: [registry] }
YAML
    local component values
    for values in demo external production; do
        # The values of production for single roles do not matter here.
        rendered "$values" --values "$work/placement-values.yaml"
        none "pods of $values that ignore the values for all pods" '
            pods | select(
                .metadata.labels.cost != "shop" or .metadata.labels["app.kubernetes.io/part-of"] != "shop"
                or .metadata.annotations["sidecar.istio.io/inject"] != "false"
                or ([.spec.tolerations[]?.key] != ["dedicated"]) or (.spec.nodeSelector // {} | length == 0)
                or (.spec.affinity.nodeAffinity == null) or ((.spec.priorityClassName // "") == "")
                or ([.spec.imagePullSecrets[]?.name] != ["registry"])
            ) | "  " + .object'
        [[ $(jq "$jq_pods [pods] | length" "$work/rendered") -ge 4 ]] || complain "fewer than four pods in $values"
        conform "$work/rendered.yml"
    done
    for component in worker api migrate test demo; do
        cat >"$work/own-values.yaml" <<YAML
$component:
  podLabels: { team: own }
  podAnnotations: { own: "yes" }
  nodeSelector: { pool: own }
  tolerations: [{ key: own }]
  affinity: { podAffinity: {} }
  priorityClassName: own
YAML
        rendered demo --values "$work/placement-values.yaml" --values "$work/own-values.yaml"
        none "pods that do not follow the placement of $component.*, or follow it without being $component" '
            pods | select(.component == $component) as $pod | [
                .metadata.labels.team == "own", .metadata.annotations.own == "yes", .spec.nodeSelector.pool == "own",
                .spec.tolerations == [{key: "own"}], (.spec.affinity // {} | keys == ["podAffinity"]),
                .spec.priorityClassName == "own", .metadata.labels.cost == "shop",
                .metadata.annotations["sidecar.istio.io/inject"] == "false"
            ] | select(all | not) | "  " + $pod.object' --arg component "$component"
        rendered demo --values "$work/placement-values.yaml" --set-json "$component.tolerations=[{\"key\": \"own\"}]"
        none "other pods that follow $component.tolerations" '
            pods | select(.component != $component and .spec.tolerations[0].key == "own") | "  " + .object' \
            --arg component "$component"
    done
}

# Duplicate names: Kubernetes uses one of the two, and later patches of such lists fail.
no_name_twice() {
    local values endpoint=OTEL_EXPORTER_OTLP_ENDPOINT
    for values in demo external production; do
        rendered "$values" --set tracing.endpoint=http://all:4317 \
            --set "worker.env.$endpoint=http://own:4317,api.env.$endpoint=http://own:4317"
        none "duplicate names in $values" '
            def twice: group_by(.)[] | select(length > 1) | .[0];
            pods | .object as $object | .spec
                | ([.volumes[]?.name] | twice),
                  (.containers[], .initContainers[]? | ([.env[]?.name] | twice), ([.volumeMounts[]?.mountPath] | twice))
                | "  \($object): \(.)"'
        none "pods of $values whose $endpoint is not the nearest one" '
            pods | (if .component | IN("worker", "api") then "http://own:4317" else "http://all:4317" end) as $wanted
                | select(.component != "demo")
                | select([.spec.containers[].env[] | select(.name == $endpoint).value] != [$wanted]) | "  " + .object' \
            --arg endpoint "$endpoint"
        # `env` must not allow a variable for which the chart has its own value, except where it replaces that value.
        none "variables that the chart sets and that values.schema.json also allows in worker.env or api.env" '
            ($schema[0].properties | {worker: .worker.properties.env, api: .api.properties.env}) as $env
            | pods | .component as $role | select($env[$role])
            | .spec.containers[].env[].name | select(IN($endpoint, "API_MAX_CONNECTIONS_PER_ADDRESS") | not)
            | select(. as $name | $own[0][$role].env // {} | has($name) | not)
            | select($env[$role].properties[.] or (. as $name | $env[$role].patternProperties | keys | any(. as $p | $name | test($p))))
            | "  \($role).env.\(.)"' --arg endpoint "$endpoint" --slurpfile schema "$chart/values.schema.json" \
            --slurpfile own <(values_of "$values")
    done
    # The collector of one role must be reachable with network policies.
    rendered external --set "networkPolicy.enabled=true,api.env.$endpoint=http://own:4317"
    none "network policies that keep the api from its collector" '
        .[] | select(.kind == "NetworkPolicy" and (.metadata.name | endswith("-api")))
        | select([.spec.egress[].ports[].port] | index(4317) | not) | "  " + .metadata.name'
}

# A role with a Secret of its own uses that one alone, and the others keep the common one.
own_secrets() {
    rendered external --set worker.database.existingSecret.name=own,worker.redis.existingSecret.name=own \
        --set migrate.database.existingSecret.name=owner,migrate.database.existingSecret.key=uri
    none 'pods that use another Secret than that of their role' '
        {
            worker: ["own database-url", "own redis-url"], migrate: ["owner database-url"],
            api: ["orders-order-service database-url", "orders-order-service redis-url"]
        } as $wanted
        | pods | select($wanted[.component]) | .component as $role | .object as $object
        | [.spec.volumes[]?.projected.sources[].secret | "\(.name) \(.items[0].path)" | select(endswith("-url"))] | sort
        | select(. != ($wanted[$role] | sort)) | "  \($object): \(.)"'
    none 'a Secret for the migration, which has its own' '
        .[] | select(.kind == "Secret" and (.metadata.name | endswith("-migrate"))) | "  " + .metadata.name'
}

# The policies allow the ports of the addresses in the values, and those of the values of the policy before them.
egress_ports() {
    rendered external --set database.url=postgres://u:p%401:2@h:6543/orders?a=b,database.readUrl=postgres://[::1]:6544/orders \
        --set 'redis.url=redis://a:7000\,rediss://u:p@b:7001/0,kafka.brokers=k1:9094\,k2:9095' \
        --set tracing.endpoint=http://c:4318/v1,networkPolicy.tracing.port=4319 \
        --set api.oidc.issuer=https://login.example.com/realms/a,api.oidc.audience=orders \
        --set-json 'networkPolicy.extraEgress=[{"ports": [{"protocol": "TCP", "port": 1234}]}]'
    none 'network policies with other ports' '
        {
            worker: [6543, 6544, 7000, 7001, 9094, 9095, 4319, 1234], api: [6543, 6544, 7000, 7001, 4319, 443, 1234],
            migrate: [6543, 6544], test: [9094, 9095, 4319, "http"]
        } as $wanted
        | .[] | select(.kind == "NetworkPolicy") | .metadata.labels["app.kubernetes.io/component"] as $role
        | [.spec.egress[].ports[].port] - [53, 5353]
        | select(sort != ($wanted[$role] | sort)) | "  \($role): \(.)"'
}

# values_of VALUES: prints the values file as JSON.
values_of() {
    { echo 'kind: Values' && cat "$chart/ci/$1-values.yaml"; } >"$work/values.yml"
    objects "$work/values.yml" | jq '.[0]'
}

# The longest release names that Helm accepts, also with a dot, produce names and labels that Kubernetes accepts.
long_names() {
    local release values
    # 53 characters. The chart truncates the second one after a dash, the third one after a dot.
    for release in orders-of-the-northern-warehouses-and-their-suppliers \
        orders-of-the-northern-warehouse-with-every--supplier \
        orders.of.the.northern.warehouses.and.their.suppliers; do
        for values in demo production; do
            helm template "$release" "$chart" --namespace shop --kube-version "$kubernetes" \
                --values "$chart/ci/$values-values.yaml" --set metrics.dashboard.enabled=true \
                --set-string "nameOverride=$release-and-everything-else" >"$work/long.yml" ||
                { complain "release $release with $values is not rendered" && continue; }
            objects "$work/long.yml" >"$work/rendered"
            none "objects of $values in release $release whose name or label Kubernetes rejects" '
                # Pods of a StatefulSet have "-" and a hash of 10 in a label; KEDA puts "keda-hpa-" before its name.
                {StatefulSet: 52, ScaledObject: 54, Job: 63, Service: 63, Pod: 63} as $longest
                | (.[] | .metadata.name as $name | .kind as $kind
                    | select(($name | length) > ($longest[$kind] // 253)
                        or ($name | test("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$") | not)
                        or ($kind == "Service" and ($name | test("^[a-z]") | not)))
                    | "  \(.kind)/\($name): \($name | length)"),
                  (.[] | "\(.kind)/\(.metadata.name)" as $object
                    | .. | objects | (.labels?, .matchLabels?, (.selector? | objects | select(has("app.kubernetes.io/name"))))
                    | objects | to_entries[] | select(.value | strings)
                    | select((.value | length) > 63 or (.value | test("^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$") | not))
                    | "  \($object): \(.key): \(.value)")'
            [[ $values != demo ]] || demo_is_found
        done
    done
    if helm template 2024-orders "$chart" --kube-version "$kubernetes" --values "$chart/ci/demo-values.yaml" >"$work/out" 2>&1; then
        complain 'helm accepts a release whose Services begin with a digit'
    fi
    grep -q '2024-orders-order-service begins with a digit, but the name of a Service begins with a letter' "$work/out" ||
        complain 'helm rejects the release name without the name of the Service'
}

# The addresses in our pods are those of the demo's Services.
demo_is_found() {
    none 'addresses that no Service of the demo has' '
        [.[] | select(.kind == "Service").metadata.name] as $services
        | [.[] | select(.kind == "Secret").stringData // {} | .[] | strings | capture("@(?<host>[^:/]+):5432|^redis://(?<redis>[^:]+)")
            | .host // .redis]
          + [pods | .spec.containers[].env[]? | select(.name == "KAFKA_BROKERS").value | split(":")[0]]
          + [pods | .spec.initContainers[]?.command[-1] | capture(" -h (?<host>[^ ]+) ").host]
          + [pods | .spec.containers[].command[]? | capture("^--verify=http://(?<host>[^:]+)").host]
          + [.[] | select(.kind == "StatefulSet").spec.serviceName]
        | unique[] | select(IN($services[]) | not) | "  " + .'
}

# An upgrade keeps the number of replicas that an autoscaler chose, and the number from before autoscaling. Fixed objects
# replace the cluster's answers here; scripts/cluster-test uses a real cluster.
live_replicas() {
    local case live wanted mark copy=$work/live
    rendered production
    none 'numbers of replicas without a cluster, where an autoscaler decides' '
        .[] | select(.kind == "Deployment" and .spec.replicas != null) | "  " + .metadata.name'
    cp -r "$chart" "$copy"
    # Autoscaling from 2 to 9. Per line: autoscaler and mark (new, marked, on), running replicas, rendered replicas and mark.
    while read -r case live wanted mark; do
        local annotations='{}' scaler='{}'
        [[ $case != marked ]] || annotations='{"order-service/keeps-replicas": "true"}'
        [[ $case == new ]] || scaler='{"kind": "HorizontalPodAutoscaler"}'
        # Because of the digit, Helm reads this file after _helpers.tpl, and its definition replaces the one there.
        cat >"$copy/templates/0-live.tpl" <<TEMPLATE
{{- define "order-service.live" -}}
{{- if eq .kind "Deployment" }}{"metadata": {"annotations": $annotations}, "spec": {"replicas": $live}}
{{- else if has .name (list "orders-order-service-api" "keda-hpa-orders-order-service-worker") }}$scaler
{{- else }}{{ fail "no autoscaler has this name" }}{{ end -}}
{{- end -}}
TEMPLATE
        chart=$copy rendered external --set kafka.partitions=12,kafka.createTopics=false,database.connectionBudget=300 \
            --set-json 'api.autoscaling={"enabled": true, "minReplicas": 2, "maxReplicas": 9}' \
            --set-json 'worker.autoscaling={"enabled": true, "minReplicas": 2, "maxReplicas": 9}'
        none "Deployments of $live replicas, autoscaling $case, that do not get $wanted ($mark)" '
            [.[] | select(.kind == "Deployment")] | if length == 2 then .[] else "  no two Deployments" | halt_error end
            | select(.spec.replicas != $wanted or (.metadata.annotations // {} | has("order-service/keeps-replicas")) != ($mark == "marked"))
            | "  \(.metadata.name): \(.spec.replicas)"' --argjson wanted "$wanted" --arg mark "$mark"
    done <<'CASES'
new 7 7 marked
new 2 2 marked
new 1 2 marked
new 0 2 marked
new 12 9 marked
marked 5 5 marked
marked 0 0 marked
on 5 null unmarked
CASES
    rendered external --set worker.replicas=4,api.replicas=3
    none 'replicas that are not those of the values' '
        .[] | select(.kind == "Deployment")
        | select(.spec.replicas != {"orders-order-service-worker": 4, "orders-order-service-api": 3}[.metadata.name])
        | "  " + .metadata.name'
}

# The alerts of a release select that release only, also in a shared Prometheus, and link to your runbooks.
alerts() {
    local url=https://runbooks.example.com/order-service
    rendered production --set-string "metrics.prometheusRule.runbookBaseUrl=$url"
    cp "$work/rendered" "$work/rule"
    none 'selectors that are not limited to this release' "$jq_selectors"'
        .[] | select(.kind == "PrometheusRule").spec.groups[].rules[] | .alert as $alert | .expr | selectors
        | select(test("\\{namespace=\"shop\",release=\"orders\",job=~?\"(worker|api|worker\\|api)\"[,}]") | not)
        | "  \($alert): \(.)"'
    none 'alerts without a link to their section of docs/runbooks.md' '
        ($runbooks | [scan("(?m)^## (.*)$")[0] | ascii_downcase]) as $sections
        | .[] | select(.kind == "PrometheusRule").spec.groups[].rules[]
        | select(.annotations.runbook_url != "\($url)#\(.alert | ascii_downcase)"
            or (.alert | ascii_downcase | IN($sections[]) | not))
        | "  \(.alert): \(.annotations.runbook_url)"' --arg url "$url" --rawfile runbooks docs/runbooks.md
    none 'a ServiceMonitor that does not set the labels that alerts select by' '
        .[] | select(.kind == "ServiceMonitor").spec
        | select(.jobLabel != "app.kubernetes.io/component"
            or ([.endpoints[].relabelings[]? | select(.targetLabel == "release").replacement] != ["orders"]))'
    rendered production --set 'metrics.prometheusRule.selector=cluster="a"' \
        --set 'metrics.prometheusRule.jobs.worker=orders.worker,metrics.prometheusRule.jobs.api=shop/api'
    none 'selectors that are not those of the values' "$jq_selectors"'
        .[] | select(.kind == "PrometheusRule").spec.groups[].rules[].expr | selectors
        | select(test("\\{cluster=\"a\",job=(\"orders\\.worker\"|\"shop/api\"|~\"orders\\\\\\\\\\.worker\\|shop/api\")[,}]") | not)'
    # Values of an earlier chart, as with `helm upgrade --reuse-values`: `null` removes a default.
    rendered production --set metrics.prometheusRule.jobs=null,metrics.prometheusRule.selector=null \
        --set migrate.tolerations=null,test.podLabels=null,podAnnotations=null,tolerations=null
    none 'selectors that are not limited to this release, without their values' "$jq_selectors"'
        .[] | select(.kind == "PrometheusRule").spec.groups[].rules[].expr | selectors
        | select(test("\\{namespace=\"shop\",release=\"orders\",job=~?\"(worker|api|worker\\|api)\"[,}]") | not)'
    if ! have promtool; then
        printf '\n*** promtool is not installed: THE RENDERED ALERTS WERE NOT EVALUATED.\n\n' >&2
        return
    fi
    jq '.[] | select(.kind == "PrometheusRule").spec' "$work/rule" >"$work/alerts.json"
    cp "$chart/ci/alerts_test.yml" "$work/"
    promtool test rules "$work/alerts_test.yml" >"$work/out" 2>&1 || { cat "$work/out" >&2 && complain 'promtool test rules'; }
}
# Selectors of a PromQL expression, with or without braces.
jq_selectors='
def selectors:
    gsub("\"(?<text>[^\"]*)\""; "\"\(.text | gsub("[{}]"; ""))\"")
    | gsub("(?<l>\\{[^}]*\\})?\\[[^\\]]*\\]"; "\(.l // "")")
    | gsub("\\b(by|without|on|ignoring)\\s*\\([^)]*\\)"; "")
    | match("(?<![\\w.])([a-zA-Z_:][a-zA-Z0-9_:]*)(\\s*\\(|\\{[^}]*\\})?"; "g")
    | select(.captures[0].string | test("^(and|or|unless|offset|bool|group_left|group_right)$") | not)
    | select(.captures[1].string // "" | endswith("(") | not) | .string;
'
