{{- define "sluice.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "sluice.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "sluice.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "sluice.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "sluice.selector" -}}
app.kubernetes.io/name: {{ include "sluice.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "sluice.labels" -}}
{{ include "sluice.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "sluice.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "sluice.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "sluice.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- /* Whether programs are loaded, so that bpffs and CAP_BPF are needed. */}}
{{- define "sluice.bpf" -}}
{{- if ne .Values.datapath.mode "off" }}true{{ end }}
{{- end }}

{{- /* The capabilities, one a line: no more than the datapath asks for. docs/kubernetes.md says why each. */}}
{{- define "sluice.capabilities" -}}
{{- if include "sluice.bpf" . }}
- BPF
{{- end }}
{{- if or (include "sluice.bpf" .) .Values.addressPool }}
- NET_ADMIN
{{- end }}
- NET_BIND_SERVICE
{{- if .Values.announce }}
- NET_RAW
{{- end }}
{{- if has .Values.datapath.mode (list "auto" "xdp" "tcx") }}
- PERFMON
{{- end }}
{{- end }}

{{- /* Host of HOST:PORT, brackets taken off. */}}
{{- define "sluice.adminHost" -}}
{{- regexReplaceAll ":[0-9]+$" .Values.admin.address "" | trimPrefix "[" | trimSuffix "]" }}
{{- end }}

{{- define "sluice.adminPort" -}}
{{- regexFind "[0-9]+$" .Values.admin.address }}
{{- end }}

{{- /* What a schema cannot say. */}}
{{- define "sluice.check" -}}
{{- if and .Values.podMonitor.enabled (or (eq .Values.admin.address "none") (hasPrefix "127." .Values.admin.address) (hasPrefix "[::1]" .Values.admin.address)) }}
{{- fail "podMonitor.enabled wants an admin that Prometheus reaches: set admin.address, as in 0.0.0.0:9901 (whoever reaches it reads the configuration, without keys)" }}
{{- end }}
{{- if and (not .Values.hostNetwork) (hasPrefix "127." .Values.probe.host) }}
{{- fail "hostNetwork: false wants a probe that the kubelet reaches: set probe.host, as in 0.0.0.0" }}
{{- end }}
{{- if and .Values.datapath.returnPathGateway (not (include "sluice.bpf" .)) }}
{{- fail "datapath.returnPathGateway speaks of packets, which datapath.mode off does not forward" }}
{{- end }}
{{- end }}
