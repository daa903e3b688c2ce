{{- define "order-service.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Room for the longest suffix: a name of Kubernetes has 63 characters. */}}
{{- define "order-service.fullname" -}}
{{- $name := include "order-service.name" . -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- default $full .Values.fullnameOverride | trunc 45 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels of an object. (dict "root" $ "component" NAME) */}}
{{- define "order-service.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{ include "order-service.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: order-service
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end -}}

{{/* The labels that never change, to select by. (dict "root" $ "component" NAME) */}}
{{- define "order-service.selector" -}}
app.kubernetes.io/name: {{ include "order-service.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* (dict "root" $ "image" IMAGE) */}}
{{- define "order-service.image" -}}
{{- with .root.Values.images.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{ .image.repository }}:{{ default .root.Chart.AppVersion .image.tag }}
{{- end -}}

{{- define "order-service.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "order-service.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* What all pods of ours have in common. (dict "root" $) */}}
{{- define "order-service.pod" -}}
automountServiceAccountToken: false
# Nothing of ours reads the variables that Kubernetes makes of Services, and some of them would look like settings.
enableServiceLinks: false
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext: {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- end -}}

{{- define "order-service.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{/* Where pods of a role may run. (dict "root" $ "component" NAME "values" .Values.ROLE) */}}
{{- define "order-service.scheduling" -}}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- if .root.Values.topologySpread }}
topologySpreadConstraints:
  {{- range .root.Values.topologySpread }}
  - {{ toYaml . | nindent 4 | trim }}
    labelSelector:
      matchLabels: {{- include "order-service.selector" $ | nindent 8 }}
    # Each version is spread on its own, or an upgrade would leave the new one uneven.
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end -}}

{{/* Starts as soon as the admin port answers; then "does it make progress" and "does it want work" are asked apart. */}}
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

{{/* Variables that every process of ours reads, then those of `env`. (dict "root" $ "env" MAP) */}}
{{- define "order-service.env" -}}
- { name: RUST_LOG, value: {{ .root.Values.logs.level | quote }} }
- { name: LOG_FORMAT, value: json }
{{- with .root.Values.tracing.endpoint }}
- { name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }} }
{{- end }}
{{- range $name, $value := .env }}
- { name: {{ $name }}, value: {{ $value | quote }} }
{{- end }}
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
{{ include "order-service.fullname" . }}-kafka:9092
{{- else -}}
{{ .Values.kafka.brokers }}
{{- end -}}
{{- end -}}
