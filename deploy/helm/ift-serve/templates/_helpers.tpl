{{- define "ift-serve.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "ift-serve.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "ift-serve.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "ift-serve.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{- end -}}

{{- define "ift-serve.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "ift-serve.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* What a probe asks. Kubernetes' own gRPC probes speak no TLS; there the command asks. */}}
{{- define "ift-serve.probe" -}}
{{- $port := .root.Values.server.port -}}
{{- if .root.Values.tls.secretName -}}
exec:
  command:
    - ift-serve
    - health
    - --server={{ printf "localhost:%v" $port }}
    - {{ printf "--authority=/etc/ift-serve/tls/%s" .root.Values.tls.authorityKey | quote }}
    {{- if .root.Values.tls.mutual }}
    - --certificate=/etc/ift-serve/probe/tls.crt
    - --key=/etc/ift-serve/probe/tls.key
    {{- end }}
    {{- if .service }}
    - --service={{ .service }}
    {{- end }}
{{- else -}}
grpc:
  port: {{ $port }}
  {{- if .service }}
  service: {{ .service }}
  {{- end }}
{{- end }}
{{- end -}}
