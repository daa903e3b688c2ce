{{/* Service and StatefulSet of one pod, for each of the three services of the demo.
(dict "root" $ "component" NAME "ports" (list (dict "name" NAME "port" NUMBER)...) "user" UID "volumes" YAML of the pod's
volumes "claim" whether it keeps data "container" YAML of the container's own fields) */}}
{{- define "order-service.demo" -}}
{{- $v := .root.Values.demo -}}
{{- $full := include "order-service.demoName" . -}}
{{- $role := dict "root" .root "component" .component "values" $v -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ $full }}
  labels: {{- include "order-service.labels" . | nindent 4 }}
spec:
  ports:
    {{- range .ports }}
    - { name: {{ .name }}, port: {{ .port }}, targetPort: {{ .name }} }
    {{- end }}
  selector: {{- include "order-service.selector" . | nindent 4 }}
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ $full }}
  labels: {{- include "order-service.labels" . | nindent 4 }}
spec:
  serviceName: {{ $full }}
  replicas: 1
  selector:
    matchLabels: {{- include "order-service.selector" . | nindent 6 }}
  template:
    metadata:
      labels: {{- include "order-service.podLabels" $role | nindent 8 }}
      {{- with include "order-service.podAnnotations" $role }}
      annotations: {{- . | nindent 8 }}
      {{- end }}
    spec:
      automountServiceAccountToken: false
      # Kafka's image reads every variable that begins with KAFKA_ as a setting, including those derived from Services.
      enableServiceLinks: false
      {{- with include "order-service.pullSecrets" .root }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- with include "order-service.placement" $role }}
      {{- trim . | nindent 6 }}
      {{- end }}
      securityContext:
        runAsNonRoot: true
        runAsUser: {{ .user }}
        runAsGroup: {{ .user }}
        fsGroup: {{ .user }}
        seccompProfile: { type: RuntimeDefault }
      containers:
        - name: {{ .component }}
          image: {{ (get $v .component).image }}
          imagePullPolicy: {{ .root.Values.images.pullPolicy }}
          {{- .container | nindent 10 }}
          ports:
            {{- range .ports }}
            - { name: {{ .name }}, containerPort: {{ .port }} }
            {{- end }}
          securityContext:
            allowPrivilegeEscalation: false
            capabilities: { drop: [ALL] }
          resources: {{- toYaml (get $v .component).resources | nindent 12 }}
      {{- if and .claim (not $v.persistence.enabled) }}
      volumes:
        - { name: data, emptyDir: {} }
      {{- end }}
  {{- if and .claim $v.persistence.enabled }}
  volumeClaimTemplates:
    - metadata:
        name: data
        labels: {{- include "order-service.selector" . | nindent 10 }}
      spec:
        accessModes: [ReadWriteOnce]
        {{- with $v.persistence.storageClassName }}
        storageClassName: {{ . }}
        {{- end }}
        resources:
          requests: { storage: {{ $v.persistence.size }} }
  {{- end }}
{{- end -}}
