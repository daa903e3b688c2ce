{{/*
Processes read secrets from files (NAME_FILE), never from variables. A variable is visible in /proc, is inherited by every child
and ends up in crash reports. The api's keys are always a file, so all secrets use the same mechanism.
*/}}

{{/* All secrets of a role as JSON, by the variable that names the file: the key in the created Secret, the value if the chart
creates it, and the Secret and key if the operator provides it, for this role or for all. (dict "root" $ "component" NAME) */}}
{{- define "order-service.secrets" -}}
{{- $v := .root.Values -}}
{{- $own := get $v (default "" .component) | default dict -}}
{{- $ownDatabase := dig "database" "existingSecret" dict $own -}}
{{- $ownRedis := dig "redis" "existingSecret" dict $own -}}
{{- $database := $v.database.url -}}
{{- $redis := $v.redis.url -}}
{{- if $v.demo.enabled -}}
{{- $database = printf "postgres://orders:%s@%s:5432/orders?sslmode=disable" (urlquery $v.demo.postgres.password) (include "order-service.demoName" (dict "root" .root "component" "postgres")) -}}
{{- $redis = printf "redis://%s:6379" (include "order-service.demoName" (dict "root" .root "component" "redis")) -}}
{{- end -}}
{{- $sasl := $v.kafka.sasl.existingSecret -}}
{{- dict
  "DATABASE_URL_FILE" (dict "key" "database-url" "value" $database "existing" (get $ownDatabase "name" | empty | ternary $v.database.existingSecret $ownDatabase))
  "DATABASE_READ_URL_FILE" (dict "key" "database-read-url" "value" $v.database.readUrl "existing" $v.database.readExistingSecret)
  "REDIS_URL_FILE" (dict "key" "redis-url" "value" $redis "existing" (get $ownRedis "name" | empty | ternary $v.redis.existingSecret $ownRedis))
  "CACHE_MAC_KEY_FILE" (dict "key" "cache-mac-key" "value" $v.redis.macKey "existing" $v.redis.macKeyExistingSecret)
  "KAFKA_SASL_USERNAME_FILE" (dict "key" "kafka-username" "value" $v.kafka.sasl.username "existing" (dict "name" $sasl.name "key" $sasl.usernameKey))
  "KAFKA_SASL_PASSWORD_FILE" (dict "key" "kafka-password" "value" $v.kafka.sasl.password "existing" (dict "name" $sasl.name "key" $sasl.passwordKey))
  "API_KEYS_FILE" (dict "key" "api-keys" "value" $v.api.keys.lines "existing" $v.api.keys.existingSecret)
  "API_KEY_FILE" (dict "key" "api-key" "value" "" "existing" $v.test.apiKey.existingSecret)
  | toJson -}}
{{- end -}}

{{/* Those of `variables` that are set, and the certificates of `services`, as a JSON list of variable, file name, Secret and
key. `secret` is the name of the created Secret; default: the full name of the release.
(dict "root" $ "component" NAME "variables" LIST ["services" LIST] ["secret" NAME]) */}}
{{- define "order-service.secretFiles" -}}
{{- $all := include "order-service.secrets" . | fromJson -}}
{{- $created := default (include "order-service.fullname" .root) .secret -}}
{{- $files := list -}}
{{- range $variable := .variables -}}
{{- $one := get $all $variable -}}
{{- if $one.existing.name -}}
{{- $files = append $files (dict "variable" $variable "file" $one.key "secret" $one.existing.name "key" $one.existing.key) -}}
{{- else if $one.value -}}
{{- $files = append $files (dict "variable" $variable "file" $one.key "secret" $created "key" $one.key) -}}
{{- end -}}
{{- end -}}
{{- range $service := .services -}}
{{- $secret := (get $.root.Values $service).tls.existingSecret -}}
{{- /* The URL of Postgres names its files itself. */ -}}
{{- $names := get (dict
  "redis" (list "REDIS_CA_FILE" "REDIS_CERT_FILE" "REDIS_KEY_FILE")
  "kafka" (list "KAFKA_SSL_CA_LOCATION" "KAFKA_SSL_CERTIFICATE_LOCATION" "KAFKA_SSL_KEY_LOCATION" "KAFKA_SSL_KEY_PASSWORD_FILE")
  "database" (list "" "" "")) $service -}}
{{- range $index, $key := list $secret.caKey $secret.certKey $secret.keyKey (get $secret "keyPasswordKey") -}}
{{- if and $secret.name $key -}}
{{- $file := printf "%s-%s" $service (index (list "ca.crt" "tls.crt" "tls.key" "tls.password") $index) -}}
{{- $files = append $files (dict "variable" (index $names $index) "file" $file "secret" $secret.name "key" $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $files | toJson -}}
{{- end -}}

{{/* Data of the created Secret: those of `variables` that the operator does not provide in a Secret. */}}
{{- define "order-service.secretData" -}}
{{- $all := include "order-service.secrets" . | fromJson -}}
{{- range $variable := .variables -}}
{{- $one := get $all $variable -}}
{{- if and $one.value (not $one.existing.name) }}
{{ $one.key }}: {{ $one.value | quote }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "order-service.secretEnv" -}}
{{- range include "order-service.secretFiles" . | fromJsonArray }}
{{- if .variable }}
- { name: {{ .variable }}, value: /etc/order-service/{{ .file }} }
{{- end }}
{{- end }}
{{- end -}}

{{- define "order-service.volumeMounts" -}}
{{- $files := include "order-service.secretFiles" . | fromJsonArray -}}
{{- $extra := .root.Values.extraVolumeMounts -}}
{{- if or $files $extra }}
volumeMounts:
  {{- if $files }}
  - { name: secrets, mountPath: /etc/order-service, readOnly: true }
  {{- end }}
  {{- with $extra }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "order-service.volumes" -}}
{{- $files := include "order-service.secretFiles" . | fromJsonArray -}}
{{- $extra := .root.Values.extraVolumes -}}
{{- if or $files $extra }}
volumes:
  {{- if $files }}
  - name: secrets
    projected:
      # Only the pod's fsGroup can read it.
      defaultMode: 0440
      sources:
        {{- range $files }}
        - secret:
            name: {{ .secret }}
            items: [{ key: {{ .key }}, path: {{ .file }} }]
        {{- end }}
  {{- end }}
  {{- with $extra }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Restarts pods when a Secret that the chart creates changes. The chart does not see changes of other Secrets: restart the
Deployment then. */}}
{{- define "order-service.secretChecksum" -}}
{{- with include "order-service.secretData" . -}}
checksum/secret: {{ sha256sum . }}
{{- end -}}
{{- end -}}
