package deploy

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint/support"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// required are the values that an installation must set.
func required() map[string]any {
	return map[string]any{
		"database": map[string]any{"existingSecret": "leaver-database"},
		"keyset":   map[string]any{"existingSecret": "leaver-keyset"},
		"temporal": map[string]any{"address": "temporal:7233"},
	}
}

// everything switches every part of the chart on.
func everything() map[string]any {
	values := required()
	values["config"] = map[string]any{"connectors": []any{map[string]any{"name": "crm", "type": "postgres", "url": "env:CRM_URL"}}}
	values["publicURL"] = "https://leaver.example.com"
	values["environmentSecrets"] = []any{"leaver-connectors"}
	values["temporal"] = map[string]any{
		"address": "acme.tmprl.cloud:7233", "namespace": "acme", "uiURL": "https://cloud.temporal.io",
		"tls": map[string]any{"enabled": true, "existingSecret": "leaver-temporal"}, "apiKey": map[string]any{"existingSecret": "leaver-temporal-key"},
	}
	values["serve"] = map[string]any{
		"ingress": map[string]any{"enabled": true, "host": "leaver.example.com", "tlsSecret": "leaver-tls", "className": "nginx"},
		"tls":     map[string]any{"existingSecret": "leaver-serve", "clientCAKey": "ca.crt"},
	}
	values["worker"] = map[string]any{"autoscaling": map[string]any{"enabled": true, "connectors": []any{"crm"}}}
	values["metrics"] = map[string]any{"serviceMonitor": map[string]any{"enabled": true, "labels": map[string]any{"release": "prometheus"}}}
	values["networkPolicy"] = map[string]any{
		"ingressFrom": []any{map[string]any{"namespaceSelector": map[string]any{}}}, "metricsFrom": []any{map[string]any{"podSelector": map[string]any{}}},
	}
	values["podAnnotations"] = map[string]any{"team": "identity"}
	values["files"] = []any{map[string]any{"name": "postgres", "secret": "postgres-tls"}, map[string]any{"name": "definitions", "configMap": "definitions"}}
	return values
}

// render renders the chart with values that its schema accepts.
func render(values map[string]any) (map[string]string, error) {
	chart, err := loader.Load("chart")
	if err != nil {
		return nil, err
	}
	options := chartutil.ReleaseOptions{Name: "leaver", Namespace: "identity", IsInstall: true, Revision: 1}
	all, err := chartutil.ToRenderValues(chart, values, options, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	return engine.Render(chart, all)
}

// custom is an object of a kind that other projects define: only its fields that the chart uses.
type custom struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		ScaleTargetRef struct {
			Name string `json:"name"`
		} `json:"scaleTargetRef"`
		MinReplicaCount int `json:"minReplicaCount"`
		MaxReplicaCount int `json:"maxReplicaCount"`
		Triggers        []struct {
			Type     string            `json:"type"`
			Metadata map[string]string `json:"metadata"`

			AuthenticationRef struct {
				Name string `json:"name"`
			} `json:"authenticationRef"`
		} `json:"triggers"`
		Selector  metav1.LabelSelector `json:"selector"`
		Endpoints []struct {
			Port     string `json:"port"`
			Interval string `json:"interval"`
		} `json:"endpoints"`
	} `json:"spec"`
}

// kinds has an empty object of each kind that the chart makes.
func kinds() map[string]func() any {
	return map[string]func() any{
		"v1/ConfigMap": func() any { return new(corev1.ConfigMap) }, "v1/Service": func() any { return new(corev1.Service) },
		"v1/ServiceAccount": func() any { return new(corev1.ServiceAccount) }, "apps/v1/Deployment": func() any { return new(appsv1.Deployment) },
		"batch/v1/Job": func() any { return new(batchv1.Job) }, "policy/v1/PodDisruptionBudget": func() any { return new(policyv1.PodDisruptionBudget) },
		"networking.k8s.io/v1/NetworkPolicy": func() any { return new(networkingv1.NetworkPolicy) },
		"networking.k8s.io/v1/Ingress":       func() any { return new(networkingv1.Ingress) },
		"keda.sh/v1alpha1/ScaledObject":      func() any { return new(custom) }, "monitoring.coreos.com/v1/ServiceMonitor": func() any { return new(custom) },
	}
}

// decode decodes the rendered objects strictly: an unknown field is an error.
func decode(t *testing.T, rendered map[string]string) map[string]any {
	t.Helper()
	objects := make(map[string]any)
	for path, text := range rendered {
		for document := range strings.SplitSeq(text, "\n---\n") {
			var head struct {
				metav1.TypeMeta   `json:",inline"`
				metav1.ObjectMeta `json:"metadata"`
			}
			if err := yaml.Unmarshal([]byte(document), &head); err != nil {
				t.Fatalf("%s: %v\n%s", path, err, document)
			}
			if head.Kind == "" {
				continue
			}
			empty, known := kinds()[head.APIVersion+"/"+head.Kind]
			if !known {
				t.Fatalf("%s has an object of an unknown kind: %s %s", path, head.APIVersion, head.Kind)
			}
			object := empty()
			if err := yaml.UnmarshalStrict([]byte(document), object); err != nil {
				t.Errorf("%s: %s %s: %v\n%s", path, head.Kind, head.Name, err, document)
			}
			objects[head.Kind+"/"+head.Name] = object
		}
	}
	return objects
}

func TestChart_Lints(t *testing.T) {
	for name, values := range map[string]map[string]any{"required": required(), "everything": everything()} {
		result := action.NewLint().Run([]string{"chart"}, values)
		for _, message := range result.Messages {
			if message.Severity >= support.WarningSev {
				t.Errorf("%s: %s", name, message)
			}
		}
	}
}

func TestChart_MakesObjectsThatKubernetesAccepts(t *testing.T) {
	for name, c := range map[string]struct {
		values map[string]any
		want   []string
	}{
		"required": {required(), []string{
			"ConfigMap/leaver", "ConfigMap/leaver-migrate", "Deployment/leaver-serve", "Deployment/leaver-worker", "Job/leaver-migrate",
			"NetworkPolicy/leaver", "PodDisruptionBudget/leaver-serve", "PodDisruptionBudget/leaver-worker", "Service/leaver-serve",
			"ServiceAccount/leaver",
		}},
		"everything": {everything(), []string{
			"ConfigMap/leaver", "ConfigMap/leaver-migrate", "Deployment/leaver-serve", "Deployment/leaver-worker", "Ingress/leaver",
			"Job/leaver-migrate", "NetworkPolicy/leaver", "PodDisruptionBudget/leaver-serve", "PodDisruptionBudget/leaver-worker",
			"ScaledObject/leaver-worker", "Service/leaver-metrics", "Service/leaver-serve", "ServiceAccount/leaver", "ServiceMonitor/leaver",
		}},
	} {
		rendered, err := render(c.values)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := slices.Sorted(maps.Keys(decode(t, rendered))); !slices.Equal(got, c.want) {
			t.Errorf("%s: the objects are %v, want %v", name, got, c.want)
		}
	}
}

// pods returns the pods of the chart by their process.
func pods(t *testing.T, values map[string]any) map[string]corev1.PodSpec {
	t.Helper()
	rendered, err := render(values)
	if err != nil {
		t.Fatal(err)
	}
	objects := decode(t, rendered)
	return map[string]corev1.PodSpec{
		"serve":   objects["Deployment/leaver-serve"].(*appsv1.Deployment).Spec.Template.Spec,
		"worker":  objects["Deployment/leaver-worker"].(*appsv1.Deployment).Spec.Template.Spec,
		"migrate": objects["Job/leaver-migrate"].(*batchv1.Job).Spec.Template.Spec,
	}
}

// TestChart_PodsAreRestricted compares the pods with the level "restricted" of Kubernetes' Pod Security Standards.
func TestChart_PodsAreRestricted(t *testing.T) {
	for process, pod := range pods(t, everything()) {
		s := pod.SecurityContext
		if s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%s: the pod's security context is %+v", process, s)
		}
		if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
			t.Errorf("%s has a token of Kubernetes' API", process)
		}
		for _, container := range pod.Containers {
			c := container.SecurityContext
			if c == nil || c.AllowPrivilegeEscalation == nil || *c.AllowPrivilegeEscalation || c.ReadOnlyRootFilesystem == nil ||
				!*c.ReadOnlyRootFilesystem || c.Capabilities == nil || !slices.Equal(c.Capabilities.Drop, []corev1.Capability{"ALL"}) {
				t.Errorf("%s: the container's security context is %+v", process, c)
			}
			if !slices.Contains(container.Args, process) {
				t.Errorf("%s runs %v", process, container.Args)
			}
		}
		for _, volume := range pod.Volumes {
			if volume.Secret != nil && (volume.Secret.DefaultMode == nil || *volume.Secret.DefaultMode != 0o440) {
				t.Errorf("%s: the mode of %s is %v, want 0440", process, volume.Name, volume.Secret.DefaultMode)
			}
		}
	}
}

// TestChart_APIEndsTLSItself finds the certificate at the API alone, and probes that use it.
func TestChart_APIEndsTLSItself(t *testing.T) {
	for process, pod := range pods(t, everything()) {
		c := pod.Containers[0]
		env := slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == "LEAVER_SERVE_TLS_KEY_FILE" })
		mounted := slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == "/run/tls" })
		volume := slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == "tls" })
		if serves := process == "serve"; env != serves || mounted != serves || volume != serves {
			t.Errorf("%s: variable %t, mount %t, volume %t, want %t", process, env, mounted, volume, serves)
		}
		for _, probe := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe} {
			if process == "serve" && (probe == nil || probe.HTTPGet.Scheme != corev1.URISchemeHTTPS) {
				t.Errorf("a probe of the API is %+v, want one by HTTPS", probe)
			}
		}
	}
}

// TestChart_FilesReachEveryProcess mounts a Secret and a ConfigMap, and reads Temporal's authority from a file without
// a certificate of a client.
func TestChart_FilesReachEveryProcess(t *testing.T) {
	values := everything()
	values["temporal"] = map[string]any{"address": "temporal:7233", "tls": map[string]any{"enabled": true, "caFile": "/run/files/postgres/ca.crt"}}
	for process, pod := range pods(t, values) {
		c := pod.Containers[0]
		for volume, path := range map[string]string{"file-postgres": "/run/files/postgres", "file-definitions": "/run/files/definitions"} {
			mounted := slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == volume && m.MountPath == path && m.ReadOnly })
			if !mounted || !slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == volume }) {
				t.Errorf("%s lacks %s", process, path)
			}
		}
		env := make(map[string]string)
		for _, e := range c.Env {
			env[e.Name] = e.Value
		}
		if env["TEMPORAL_TLS_SERVER_CA_CERT_PATH"] != "/run/files/postgres/ca.crt" || env["TEMPORAL_TLS_CLIENT_CERT_PATH"] != "" {
			t.Errorf("%s reaches Temporal with %v", process, env)
		}
	}
}

func TestChart_OwnerURLIsOfTheMigrationAlone(t *testing.T) {
	for process, pod := range pods(t, required()) {
		owner := slices.ContainsFunc(pod.Containers[0].Env, func(e corev1.EnvVar) bool { return e.Name == "LEAVER_DATABASE_MIGRATE_URL" })
		if owner != (process == "migrate") {
			t.Errorf("%s has the owner's URL: %t", process, owner)
		}
	}
}

func TestChart_RefusesMisspeltAndMissingValues(t *testing.T) {
	for name, c := range map[string]struct {
		change func(map[string]any)
		want   string
	}{
		"a misspelt value":       {func(v map[string]any) { v["replica"] = 3 }, "replica"},
		"a misspelt inner value": {func(v map[string]any) { v["worker"] = map[string]any{"autoscale": true} }, "autoscale"},
		"a misspelt section":     {func(v map[string]any) { v["config"] = map[string]any{"connector": []any{}} }, "connector"},
		"a wrong type":           {func(v map[string]any) { v["serve"] = map[string]any{"replicas": "two"} }, "replicas"},
		"no database":            {func(v map[string]any) { delete(v, "database") }, "database.existingSecret is required"},
		"no key set":             {func(v map[string]any) { delete(v, "keyset") }, "keyset.existingSecret is required"},
		"no Temporal":            {func(v map[string]any) { delete(v, "temporal") }, "temporal.address is required"},
		"a file of nothing":      {func(v map[string]any) { v["files"] = []any{map[string]any{"name": "x"}} }, "secret or configMap"},
		"a monitor that is not permitted": {func(v map[string]any) {
			v["metrics"] = map[string]any{"serviceMonitor": map[string]any{"enabled": true}}
		}, "metricsFrom must permit"},
		"an ingress without a host": {func(v map[string]any) {
			v["serve"] = map[string]any{"ingress": map[string]any{"enabled": true}}
		}, "serve.ingress.host is required"},
	} {
		values := required()
		c.change(values)
		if _, err := render(values); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestChart_ValuesAreInTheSchema also keeps the schema from lacking what values.yaml has.
func TestChart_ValuesAreInTheSchema(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("chart", "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var values map[string]any
	if err := yaml.UnmarshalStrict(raw, &values); err != nil {
		t.Fatal(err)
	}
	chart, err := loader.Load("chart")
	if err != nil {
		t.Fatal(err)
	}
	if err := chartutil.ValidateAgainstSchema(chart, values); err != nil {
		t.Error(err)
	}
}
