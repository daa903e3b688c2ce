{{- define "order-service.name" -}}
{{- regexReplaceAll "[-.]+$" (default .Chart.Name .Values.nameOverride | trunc 63) "" -}}
{{- end -}}

{{/* Prefix of object names. At most 45 characters, because a Service or Job has at most 63 with its suffix. Dots, which a
release name may hold and a Service name may not, become hyphens. */}}
{{- define "order-service.fullname" -}}
{{- $name := include "order-service.name" . -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- regexReplaceAll "-+$" (default $full .Values.fullnameOverride | replace "." "-" | trunc 45) "" -}}
{{- end -}}

{{/* Name of a service of the demo. Kubernetes puts the name of a StatefulSet and a hash of 10 characters into a label of its
pods, so the name has at most 52 characters. (dict "root" $ "component" NAME) */}}
{{- define "order-service.demoName" -}}
{{- $room := sub 51 (len .component) | int -}}
{{- $full := include "order-service.fullname" .root | trunc $room -}}
{{- printf "%s-%s" (regexReplaceAll "-+$" $full "") .component -}}
{{- end -}}

{{/* Labels of an object. (dict "root" $ "component" NAME) */}}
{{- define "order-service.labels" -}}
helm.sh/chart: {{ regexReplaceAll "[-_.]+$" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63) "" }}
{{ include "order-service.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: order-service
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end -}}

{{/* Labels that selectors use. They never change. (dict "root" $ "component" NAME) */}}
{{- define "order-service.selector" -}}
app.kubernetes.io/name: {{ include "order-service.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Reference of an image: by its digest, else by its tag. (dict "root" $ "image" IMAGE) */}}
{{- define "order-service.image" -}}
{{- with .root.Values.images.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{ .image.repository }}{{ with .image.digest }}@{{ . }}{{ else }}:{{ default .root.Chart.AppVersion .image.tag }}{{ end }}
{{- end -}}

{{- define "order-service.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "order-service.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Fields that all pods except the demo's share. (dict "root" $) */}}
{{- define "order-service.pod" -}}
automountServiceAccountToken: false
# No process reads the variables that Kubernetes derives from Services. Some of them have the names of our settings.
enableServiceLinks: false
{{- with include "order-service.pullSecrets" .root }}
{{ . }}
{{- end }}
securityContext: {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- end -}}

{{/* Secrets of the registry, for every pod including the demo's. */}}
{{- define "order-service.pullSecrets" -}}
{{- with .Values.images.pullSecrets -}}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end -}}
{{- end -}}

{{- define "order-service.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{/* Labels of a pod: the selector labels and `podLabels`. A role's entry overrides the entry for all pods.
(dict "root" $ "component" NAME "values" .Values.ROLE) */}}
{{- define "order-service.podLabels" -}}
{{ include "order-service.selector" . }}
{{- with include "order-service.extraPodLabels" . }}
{{ . }}
{{- end }}
{{- end -}}

{{/* Only `podLabels`, without the selector labels. (dict "root" $ "values" .Values.ROLE) */}}
{{- define "order-service.extraPodLabels" -}}
{{- with merge (dict) (default (dict) .values.podLabels) (default (dict) .root.Values.podLabels) -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}

{{/* Annotations of a pod: `own` and `podAnnotations`, merged like labels. Empty if there are none.
(dict "root" $ "component" NAME "values" .Values.ROLE ["own" MAP]) */}}
{{- define "order-service.podAnnotations" -}}
{{- $values := merge (dict) (default (dict) .values.podAnnotations) (default (dict) .root.Values.podAnnotations) -}}
{{- with merge $values (default (dict) .own) -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}

{{/* Number of replicas of a Deployment. (dict "root" $ "component" NAME "values" .Values.ROLE "scaler" NAME) */}}
{{- define "order-service.replicas" -}}
{{- if .values.autoscaling.enabled -}}
{{- with include "order-service.keptReplicas" . }}replicas: {{ . }}{{ end -}}
{{- else -}}
replicas: {{ .values.replicas }}
{{- end -}}
{{- end -}}

{{/* Replicas that an upgrade keeps while an autoscaler scales. Empty if the manifest needs no number.

An upgrade that turns autoscaling on would remove `replicas` from the manifest, and Kubernetes would then set it to 1. That
upgrade therefore renders the live number and marks the Deployment. Later upgrades of a marked Deployment keep rendering it.
A release installed with autoscaling never renders a number, so that a rollback does not restore an old one. */}}
{{- define "order-service.keptReplicas" -}}
{{- $scaling := .values.autoscaling -}}
{{- $name := printf "%s-%s" (include "order-service.fullname" .root) .component -}}
{{- if $scaling.enabled -}}
{{- $live := include "order-service.live" (dict "root" .root "api" "apps/v1" "kind" "Deployment" "name" $name) | fromJson -}}
{{- with $live -}}
{{- $scaler := include "order-service.live" (dict "root" $.root "api" "autoscaling/v2" "kind" "HorizontalPodAutoscaler" "name" $.scaler) | fromJson -}}
{{- if not $scaler -}}
{{- min $scaling.maxReplicas .spec.replicas | max $scaling.minReplicas -}}
{{- else if hasKey (default (dict) .metadata.annotations) "order-service/keeps-replicas" -}}
{{- .spec.replicas -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* An object of the cluster as JSON. Empty if there is no such object, or no cluster (`helm template`).
(dict "root" $ "api" VERSION "kind" KIND "name" NAME) */}}
{{- define "order-service.live" -}}
{{- lookup .api .kind .root.Release.Namespace .name | toJson -}}
{{- end -}}

{{/* Placement of pods: the role's values, else the values for all pods.
(dict "root" $ "values" .Values.ROLE) */}}
{{- define "order-service.placement" -}}
{{- $all := .root.Values -}}
{{- with default $all.nodeSelector .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with default $all.tolerations .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with default $all.affinity .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with default $all.priorityClassName .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* Placement and topology spread of the pods of a Deployment.
(dict "root" $ "component" NAME "values" .Values.ROLE) */}}
{{- define "order-service.scheduling" -}}
{{- include "order-service.placement" . }}
{{- if .root.Values.topologySpread }}
topologySpreadConstraints:
  {{- range .root.Values.topologySpread }}
  - {{ toYaml . | nindent 4 | trim }}
    labelSelector:
      matchLabels: {{- include "order-service.selector" $ | nindent 8 }}
    # Spreads each version separately. Otherwise an upgrade leaves the new version uneven.
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end -}}

{{/* Probes: startup succeeds when the admin port responds. Liveness then checks progress, and readiness whether the process
accepts work. */}}
{{- define "order-service.probes" -}}
startupProbe:
  httpGet: { path: /livez, port: admin }
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: { path: /livez, port: admin }
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 3
readinessProbe:
  httpGet: { path: /readyz, port: admin }
  periodSeconds: 2
  timeoutSeconds: 3
  failureThreshold: 2
{{- end -}}

{{/* Variables of every process, then those of `env`. A role's own trace endpoint replaces the common one, because a name that
occurs twice breaks later patches of the list. (dict "root" $ "env" MAP) */}}
{{- define "order-service.env" -}}
- { name: RUST_LOG, value: {{ .root.Values.logs.level | quote }} }
- { name: LOG_FORMAT, value: json }
{{- if and .root.Values.tracing.endpoint (not (hasKey .env "OTEL_EXPORTER_OTLP_ENDPOINT")) }}
- { name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ .root.Values.tracing.endpoint | quote }} }
{{- end }}
{{- range $name, $value := .env }}
- { name: {{ $name }}, value: {{ $value | quote }} }
{{- end }}
{{- end -}}

{{/* Not empty if callers of the api need no credentials. */}}
{{- define "order-service.isAnonymous" -}}
{{- $api := .Values.api -}}
{{- if not (or $api.keys.lines $api.keys.existingSecret.name $api.oidc.issuer) -}}true{{- end -}}
{{- end -}}

{{- define "order-service.kafkaEnv" -}}
- { name: KAFKA_BROKERS, value: {{ include "order-service.brokers" . | quote }} }
- { name: KAFKA_TOPIC, value: {{ .Values.kafka.topic | quote }} }
{{- with .Values.kafka.securityProtocol }}
- { name: KAFKA_SECURITY_PROTOCOL, value: {{ . }} }
{{- end }}
{{- with .Values.kafka.sasl.mechanism }}
- { name: KAFKA_SASL_MECHANISM, value: {{ . }} }
{{- end }}
{{- with .Values.kafka.sslCaLocation }}
- { name: KAFKA_SSL_CA_LOCATION, value: {{ . | quote }} }
{{- end }}
{{- end -}}

{{- define "order-service.brokers" -}}
{{- if .Values.demo.enabled -}}
{{ include "order-service.demoName" (dict "root" . "component" "kafka") }}:9092
{{- else -}}
{{ .Values.kafka.brokers }}
{{- end -}}
{{- end -}}
