package telemetry

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

const root = "../.."

// published are our metrics after an exercise of all of the API: by name, the
// values of each label.
type published map[string]map[string]map[string]bool

// publish returns our metrics, histograms also by the names that they are asked
// for with.
func publish(t *testing.T) (names, series published) {
	tel := New("test")
	exercise(tel)
	families, err := tel.gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	names, series = published{}, published{}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "headgate_") {
			continue
		}
		labels := map[string]map[string]bool{}
		for _, m := range f.Metric {
			for _, l := range m.Label {
				if labels[l.GetName()] == nil {
					labels[l.GetName()] = map[string]bool{}
				}
				labels[l.GetName()][l.GetValue()] = true
			}
		}
		names[f.GetName()] = labels
		if f.Metric[0].Histogram == nil {
			series[f.GetName()] = labels
			continue
		}
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			series[f.GetName()+suffix] = labels
		}
	}
	return names, series
}

// Every metric is in the table of docs/metrics.md with its labels, and nothing
// else is; and every label and every of its closed values is in the other table.
func TestMetricsAreDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	names, _ := publish(t)
	quoted := regexp.MustCompile("`([^`]+)`")
	documented := map[string]bool{}
	explained := map[string]string{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		name := strings.Trim(cells[1], " `")
		if !strings.HasPrefix(name, "headgate_") {
			explained[name] = cells[2]
			continue
		}
		if len(cells) != 6 || strings.TrimSpace(cells[3]) == "" {
			t.Errorf("%s is not explained", name)
		}
		if documented[name] {
			t.Errorf("%s is there twice", name)
		}
		documented[name] = true
		var labels []string
		for _, m := range quoted.FindAllStringSubmatch(cells[2], -1) {
			labels = append(labels, m[1])
		}
		slices.Sort(labels)
		if want := slices.Sorted(maps.Keys(names[name])); !slices.Equal(labels, want) {
			t.Errorf("%s has the labels %v, but the table says %v", name, want, labels)
		}
	}
	for name, labels := range names {
		if !documented[name] {
			t.Errorf("%s is published and not documented", name)
		}
		for label := range labels {
			if explained[label] == "" && name != "headgate_build_info" {
				t.Errorf("the label %s is not explained", label)
			}
		}
	}
	for name := range documented {
		if names[name] == nil {
			t.Errorf("%s is documented and not published", name)
		}
	}
	for label, words := range map[string][]string{
		"class": classes, "kind": kinds[:], "outcome": outcomes[:], "reason": bounds, "state": executionStates, "result": delivered,
	} {
		for _, w := range words {
			if !strings.Contains(explained[label], "`"+w+"`") {
				t.Errorf("the value %s of %s is not documented", w, label)
			}
		}
	}
}

var (
	metricName = regexp.MustCompile(`headgate_[a-z0-9_]+`)
	selector   = regexp.MustCompile(`(headgate_[a-z0-9_]+)\{([^}]*)\}`)
	matcher    = regexp.MustCompile(`([a-z_]+)(=~|!~|!=|=)"([^"]*)"`)
)

// checkExpression reports metrics, labels and values that there are not.
func checkExpression(t *testing.T, series published, where, expr string) {
	t.Helper()
	if !metricName.MatchString(expr) {
		t.Errorf("%s: %q asks for nothing of ours", where, expr)
	}
	for _, name := range metricName.FindAllString(expr, -1) {
		if series[name] == nil {
			t.Errorf("%s: there is no %s", where, name)
		}
	}
	for _, s := range selector.FindAllStringSubmatch(expr, -1) {
		for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
			values := series[s[1]][m[1]]
			if values == nil {
				t.Errorf("%s: %s has no label %s", where, s[1], m[1])
			}
			for value := range strings.SplitSeq(m[3], "|") {
				if m[1] != "org" && m[1] != "kind" && !values[value] {
					t.Errorf("%s: %s has no %s %q", where, s[1], m[1], value)
				}
			}
		}
	}
}

func read(t *testing.T, elements ...string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{root, "deploy"}, elements...)...))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestDashboard(t *testing.T) {
	var dashboard struct {
		UID        string
		Templating struct {
			List []struct{ Name, Definition string }
		}
		Panels []struct {
			ID             int
			Type, Title    string
			GridPos        struct{ X, Y, W, H int }
			Targets        []struct{ RefID, Expr string }
			FieldConfig    any
			Options        any
			Description    string
			Collapsed      bool
			DatasourceType string
		}
	}
	if err := json.Unmarshal(read(t, "grafana", "headgate.json"), &dashboard); err != nil {
		t.Fatal(err)
	}
	_, series := publish(t)
	variables := map[string]bool{}
	for _, v := range dashboard.Templating.List {
		variables[v.Name] = true
		if v.Definition != "" {
			checkExpression(t, series, "variable "+v.Name, v.Definition)
		}
	}
	if !variables["org"] || !variables["datasource"] {
		t.Errorf("variables %v", variables)
	}
	ids := map[int]bool{}
	taken := map[[2]int]string{}
	asked := map[string]bool{}
	for _, p := range dashboard.Panels {
		if ids[p.ID] {
			t.Errorf("%s: the id %d is there twice", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if x >= 24 || taken[[2]int{x, y}] != "" {
					t.Fatalf("%s lies on %q or outside", p.Title, taken[[2]int{x, y}])
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%s shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			checkExpression(t, series, p.Title, target.Expr)
			if !strings.Contains(target.Expr, `org=~"$org"`) {
				t.Errorf("%s: %s does not go by the org that was chosen", p.Title, target.Expr)
			}
			for _, name := range metricName.FindAllString(target.Expr, -1) {
				asked[strings.TrimSuffix(name, "_bucket")] = true
			}
		}
	}
	for _, name := range []string{
		"headgate_wait_seconds", "headgate_requests_sent_total", "headgate_answers_total", "headgate_bucket_level", "headgate_bucket_rate",
		"headgate_bucket_rate_confidence", "headgate_executions", "headgate_queue_oldest_seconds", "headgate_held_calls", "headgate_logins_total",
	} {
		if !asked[name] {
			t.Errorf("%s is not shown", name)
		}
	}
}

func TestAlerts(t *testing.T) {
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For string
				Labels           struct{ Severity string }
				Annotations      struct{ Summary, Runbook string }
			}
		}
	}
	if err := yaml.UnmarshalWithOptions(read(t, "prometheus", "alerts.yaml"), &file, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	_, series := publish(t)
	alerts := map[string]bool{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if alerts[r.Alert] {
				t.Errorf("%s is there twice", r.Alert)
			}
			alerts[r.Alert] = true
			checkExpression(t, series, r.Alert, r.Expr)
			for _, name := range metricName.FindAllString(r.Annotations.Runbook, -1) {
				if series[name] == nil {
					t.Errorf("%s: the runbook names %s, which there is not", r.Alert, name)
				}
			}
			if r.Labels.Severity == "" || r.Annotations.Summary == "" || r.Annotations.Runbook == "" {
				t.Errorf("%s has no severity, summary or runbook", r.Alert)
			}
		}
	}
	if len(alerts) != 7 {
		t.Errorf("%d alerts: %v", len(alerts), alerts)
	}
}

// The alerts ask for the job by the name that the example gives it.
func TestScrapeExample(t *testing.T) {
	var file struct {
		RuleFiles     []string `yaml:"rule_files"`
		ScrapeConfigs []struct {
			JobName        string                       `yaml:"job_name"`
			ScrapeInterval string                       `yaml:"scrape_interval"`
			StaticConfigs  []struct{ Targets []string } `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	if err := yaml.UnmarshalWithOptions(read(t, "prometheus", "scrape.yaml"), &file, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	if len(file.ScrapeConfigs) != 1 || len(file.RuleFiles) != 1 {
		t.Fatalf("%+v", file)
	}
	read(t, "prometheus", file.RuleFiles[0])
	job := fmt.Sprintf("job=%q", file.ScrapeConfigs[0].JobName)
	if !strings.Contains(string(read(t, "prometheus", "alerts.yaml")), job) {
		t.Errorf("no alert asks for %s", job)
	}
}

func TestPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed")
	}
	for kind, name := range map[string]string{"rules": "alerts.yaml", "config": "scrape.yaml"} {
		out, err := exec.CommandContext(t.Context(), promtool, "check", kind, filepath.Join(root, "deploy", "prometheus", name)).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
