{{- define "tocsin.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- /* Short enough that "-RELEASE's longest suffix" still fits into the 63 characters of a label. */}}
{{- define "tocsin.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "tocsin.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "tocsin.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "tocsin.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tocsin.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tocsin.labels" -}}
{{ include "tocsin.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* What the Prometheus Operator puts into the label `job` of a PodMonitor's series. */}}
{{- define "tocsin.prometheusJob" -}}
{{ .Release.Namespace }}/{{ include "tocsin.fullname" . }}
{{- end }}

{{- define "tocsin.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "tocsin.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "tocsin.image" -}}
{{- $tagged := printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- if .Values.image.digest }}{{ printf "%s@%s" $tagged .Values.image.digest }}{{ else }}{{ $tagged }}{{ end }}
{{- end }}

{{- /* Of workers and migrations alike. */}}
{{- define "tocsin.podBasics" -}}
automountServiceAccountToken: false
# A Service named tocsin-metrics would otherwise set TOCSIN_METRICS_PORT, to a URL.
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- end }}

{{- define "tocsin.containerBasics" -}}
image: {{ include "tocsin.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- toYaml .Values.containerSecurityContext | nindent 2 }}
{{- end }}

{{- define "tocsin.environment" -}}
- {name: TOCSIN_DATABASE_URL_FILE, value: /run/secrets/tocsin/database-url}
- {name: TOCSIN_LOG_FORMAT, value: {{ .Values.settings.logFormat | quote }}}
- {name: TOCSIN_LOG_LEVEL, value: {{ .Values.settings.logLevel | quote }}}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tocsin.workerEnvironment" -}}
- {name: TOCSIN_BROKER_URL_FILE, value: /run/secrets/tocsin/broker-url}
- {name: TOCSIN_MASTER_KEY_FILE, value: /run/secrets/tocsin/master.key}
- {name: TOCSIN_WORKER_THREADS, value: {{ .Values.settings.workerThreads | quote }}}
- {name: TOCSIN_LEASE_SECONDS, value: {{ .Values.settings.leaseSeconds | quote }}}
- {name: TOCSIN_SHUTDOWN_GRACE_SECONDS, value: {{ .Values.settings.shutdownGraceSeconds | quote }}}
- {name: TOCSIN_METRICS_HOST, value: 0.0.0.0}
- {name: TOCSIN_METRICS_PORT, value: "9191"}
{{- end }}

{{- define "tocsin.volumeMounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: secrets, mountPath: /run/secrets/tocsin, readOnly: true}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Given the root and which of the secrets: a migration needs the database only. */}}
{{- define "tocsin.volumes" -}}
{{- $root := index . 0 }}
{{- $files := index . 1 -}}
- name: tmp
  emptyDir: {medium: Memory, sizeLimit: {{ $root.Values.tmpSizeLimit | quote }}}
- name: secrets
  projected:
    # For the owner and fsGroup only: Tocsin refuses a master key that everybody can read.
    defaultMode: 0440
    sources:
      {{- range $value, $path := $files }}
      {{- $secret := index $root.Values.secrets $value }}
      - secret:
          name: {{ required (printf "secrets.%s.existingSecret is missing: name the Secret that holds it; the chart makes none." $value) $secret.existingSecret | quote }}
          items:
            - {key: {{ $secret.key | quote }}, path: {{ $path }}}
      {{- end }}
{{- with $root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* An egress rule of a NetworkPolicy: given ports and, where some are named, given peers. */}}
{{- define "tocsin.egress" -}}
- ports:
    {{- range .ports }}
    - {protocol: TCP, port: {{ int . }}}
    {{- end }}
  {{- with .to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- /* Given ports: names are asked for by UDP, and by TCP where an answer is long. */}}
{{- define "tocsin.egressDns" -}}
- ports:
    {{- range . }}
    - {protocol: UDP, port: {{ int . }}}
    - {protocol: TCP, port: {{ int . }}}
    {{- end }}
{{- end }}
