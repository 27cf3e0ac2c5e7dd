{{- define "regproxy.name" -}}
{{- if contains "regproxy" .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-regproxy" .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "regproxy.selector" -}}
app.kubernetes.io/name: regproxy
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: proxy
{{- end -}}

{{- define "regproxy.nodeSelector" -}}
app.kubernetes.io/name: regproxy
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: node
{{- end -}}

{{- define "regproxy.labels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "regproxy.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "regproxy.caSecret" -}}
{{- .Values.ca.secretName | default (printf "%s-ca" (include "regproxy.name" .)) -}}
{{- end -}}

{{- define "regproxy.nodeMode" -}}
{{- .Values.node.mode | default .Values.mode -}}
{{- end -}}

{{/*
The CA as "crt" and "key", base64: that of the Secret, or a new one. Made once for each
rendering, so that all templates see the same. Without access to the cluster, as in "helm
template", a Secret of the user's own cannot be read: then "crt" is empty.
*/}}
{{- define "regproxy.ca" -}}
{{- if not (hasKey .Values "_ca") -}}
{{- $found := lookup "v1" "Secret" .Release.Namespace (include "regproxy.caSecret" .) -}}
{{- if $found -}}
{{- $_ := set .Values "_ca" (dict "crt" (index $found.data "tls.crt") "key" (index $found.data "tls.key")) -}}
{{- else if .Values.ca.secretName -}}
{{- $_ := set .Values "_ca" (dict "crt" "" "key" "") -}}
{{- else -}}
{{- $new := genCA (printf "regproxy CA %s" (randAlphaNum 8 | lower)) 3650 -}}
{{- $_ := set .Values "_ca" (dict "crt" ($new.Cert | b64enc) "key" ($new.Key | b64enc)) -}}
{{- end -}}
{{- end -}}
{{- toYaml .Values._ca -}}
{{- end -}}

{{- define "regproxy.toml" -}}
data = "/var/lib/regproxy"

[ca]
directory = "/etc/regproxy/ca"

[cache]
max_size = {{ .Values.cache.maxSize | toJson }}
# Transfers under way and the index come on top of max_size.
min_free = "2GiB"

[limits]
# Within the pod's terminationGracePeriodSeconds.
drain = "50s"

[proxy]
listen = ["tcp:3128"]

[mirror]
listen = ["tcp:5000"]

[management]
listen = ["tcp:8080"]
{{- if eq .Values.mode "dns" }}
{{- if not .Values.dns.addresses }}{{ fail "dns.addresses: the address of the Service, or of the hosts" }}{{ end }}
{{- if not .Values.dns.forwardTo }}{{ fail "dns.forwardTo: the name servers that the nodes have" }}{{ end }}

# Ports that need no privilege: the Service has 443, 80 and 53.
[tls]
listen = ["tcp:8443"]
http_listen = ["tcp:8081"]

[dns]
listen = ["0.0.0.0:8053"]
addresses = {{ .Values.dns.addresses | toJson }}
forward_to = {{ .Values.dns.forwardTo | toJson }}
# The proxy's own look-ups must not lead back to itself.
upstream_resolvers = {{ .Values.dns.forwardTo | toJson }}
{{- end }}
{{- if .Values.credentials.secretName }}

[credentials]
docker_config = "/etc/regproxy/credentials/config.json"
{{- end }}
{{- with .Values.config }}

{{ . | trim }}
{{- end }}
{{ end -}}
