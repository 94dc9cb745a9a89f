{{- define "leaver.labels" -}}
app.kubernetes.io/name: leaver
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "leaver.selector" -}}
app.kubernetes.io/name: leaver
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "leaver.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "leaver.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "leaver.config" -}}
{{ toYaml .Values.config }}
{{- end }}

{{/* The container of a process: command, and the name of the ConfigMap that the pod mounts. */}}
{{- define "leaver.container" -}}
name: {{ .component }}
image: "{{ .root.Values.image.repository }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}"
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args: ["--config", "/etc/leaver/leaver.yaml", {{ .component | quote }}]
securityContext: {{- include "leaver.containerSecurity" .root | nindent 2 }}
env:
  - name: LEAVER_DATABASE_URL
    valueFrom: {secretKeyRef: {name: {{ required "database.existingSecret is required" .root.Values.database.existingSecret }}, key: {{ .root.Values.database.urlKey }}}}
  {{- if eq .component "migrate" }}
  - name: LEAVER_DATABASE_MIGRATE_URL
    valueFrom: {secretKeyRef: {name: {{ .root.Values.database.existingSecret }}, key: {{ .root.Values.database.migrateURLKey }}}}
  {{- end }}
  - {name: LEAVER_SEAL_KEYSET_FILE, value: /run/keyset/{{ .root.Values.keyset.key }}}
  - {name: LEAVER_TEMPORAL_ADDRESS, value: {{ required "temporal.address is required" .root.Values.temporal.address | quote }}}
  - {name: LEAVER_TEMPORAL_NAMESPACE, value: {{ .root.Values.temporal.namespace | quote }}}
  {{- with .root.Values.temporal.uiURL }}
  - {name: LEAVER_TEMPORAL_UI_URL, value: {{ . | quote }}}
  {{- end }}
  {{- with .root.Values.temporal.minimumRetention }}
  - {name: LEAVER_TEMPORAL_MINIMUM_RETENTION, value: {{ . | quote }}}
  {{- end }}
  {{- if .root.Values.temporal.tls.enabled }}
  - {name: TEMPORAL_TLS, value: "true"}
  {{- if .root.Values.temporal.tls.existingSecret }}
  - {name: TEMPORAL_TLS_CLIENT_CERT_PATH, value: /run/temporal/tls.crt}
  - {name: TEMPORAL_TLS_CLIENT_KEY_PATH, value: /run/temporal/tls.key}
  {{- with .root.Values.temporal.tls.caKey }}
  - {name: TEMPORAL_TLS_SERVER_CA_CERT_PATH, value: /run/temporal/{{ . }}}
  {{- end }}
  {{- end }}
  {{- if and .root.Values.temporal.tls.caFile (not .root.Values.temporal.tls.caKey) }}
  - {name: TEMPORAL_TLS_SERVER_CA_CERT_PATH, value: {{ .root.Values.temporal.tls.caFile | quote }}}
  {{- end }}
  {{- end }}
  {{- if .root.Values.temporal.apiKey.existingSecret }}
  - name: TEMPORAL_API_KEY
    valueFrom: {secretKeyRef: {name: {{ .root.Values.temporal.apiKey.existingSecret }}, key: {{ .root.Values.temporal.apiKey.key }}}}
  {{- end }}
  - {name: LEAVER_SERVE_LISTEN, value: ":8080"}
  {{- if and (eq .component "serve") .root.Values.serve.tls.existingSecret }}
  - {name: LEAVER_SERVE_TLS_CERT_FILE, value: /run/tls/tls.crt}
  - {name: LEAVER_SERVE_TLS_KEY_FILE, value: /run/tls/tls.key}
  {{- with .root.Values.serve.tls.clientCAKey }}
  - {name: LEAVER_SERVE_CLIENT_CA_FILE, value: /run/tls/{{ . }}}
  {{- end }}
  {{- end }}
  {{- with .root.Values.publicURL }}
  - {name: LEAVER_SERVE_PUBLIC_URL, value: {{ . | quote }}}
  {{- end }}
  - {name: LEAVER_METRICS_LISTEN, value: {{ printf ":%d" (int .root.Values.metrics.port) | quote }}}
  - {name: LEAVER_LOG_LEVEL, value: {{ .root.Values.logLevel }}}
{{- with .root.Values.environmentSecrets }}
envFrom:
  {{- range . }}
  - secretRef: {name: {{ . }}}
  {{- end }}
{{- end }}
volumeMounts:
  - {name: config, mountPath: /etc/leaver, readOnly: true}
  - {name: keyset, mountPath: /run/keyset, readOnly: true}
  {{- if and (eq .component "serve") .root.Values.serve.tls.existingSecret }}
  - {name: tls, mountPath: /run/tls, readOnly: true}
  {{- end }}
  {{- if and .root.Values.temporal.tls.enabled .root.Values.temporal.tls.existingSecret }}
  - {name: temporal, mountPath: /run/temporal, readOnly: true}
  {{- end }}
  {{- range .root.Values.files }}
  - {name: file-{{ .name }}, mountPath: /run/files/{{ .name }}, readOnly: true}
  {{- end }}
{{- end }}

{{/* What the pods of all processes have in common. */}}
{{- define "leaver.pod" -}}
serviceAccountName: {{ .account | default .root.Release.Name }}
enableServiceLinks: false
automountServiceAccountToken: false
securityContext: {{- include "leaver.podSecurity" .root | nindent 2 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - name: config
    configMap: {name: {{ .config }}}
  - name: keyset
    secret: {secretName: {{ required "keyset.existingSecret is required" .root.Values.keyset.existingSecret }}, defaultMode: 0440}
  {{- if and .serves .root.Values.serve.tls.existingSecret }}
  - name: tls
    secret: {secretName: {{ .root.Values.serve.tls.existingSecret }}, defaultMode: 0440}
  {{- end }}
  {{- if and .root.Values.temporal.tls.enabled .root.Values.temporal.tls.existingSecret }}
  - name: temporal
    secret: {secretName: {{ .root.Values.temporal.tls.existingSecret }}, defaultMode: 0440}
  {{- end }}
  {{- range .root.Values.files }}
  - name: file-{{ .name }}
    {{- if .secret }}
    secret: {secretName: {{ .secret }}, defaultMode: 0440}
    {{- else }}
    configMap: {name: {{ required "each of files has secret or configMap" .configMap }}}
    {{- end }}
  {{- end }}
{{- end }}
