package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/headgate/headgate/internal/config"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// takes checks that the command takes these arguments.
func takes(t *testing.T, where string, args []string) {
	t.Helper()
	if len(args) == 0 || args[0] != "gateway" {
		t.Fatalf("%s: runs %q", where, args)
	}
	if err := (&process{}).gatewayCommand().ParseFlags(args[1:]); err != nil {
		t.Errorf("%s: %v", where, err)
	}
}

// The image runs a command that there is, as somebody who is not root.
func TestDockerfile(t *testing.T) {
	text := read(t, "../../deploy/docker/Dockerfile")
	m := regexp.MustCompile(`(?m)^CMD (\[.*\])$`).FindStringSubmatch(text)
	var args []string
	if m == nil || json.Unmarshal([]byte(m[1]), &args) != nil {
		t.Fatalf("no CMD: %q", m)
	}
	takes(t, "Dockerfile", args)
	if !strings.Contains(text, "\nUSER 65532:65532\n") || !strings.Contains(text, "\nFROM scratch\n") {
		t.Error("it is to run as nobody, from scratch")
	}
	mod := regexp.MustCompile(`(?m)^go (\S+)$`).FindStringSubmatch(read(t, "../../go.mod"))
	if !strings.Contains(text, "FROM golang:"+mod[1]+" ") {
		t.Errorf("it is to be built with Go %s, as go.mod says", mod[1])
	}
}

// The unit is one that systemd takes, with a command that there is and time for
// draining.
func TestSystemdUnit(t *testing.T) {
	const path = "../../deploy/systemd/headgate.service"
	text := read(t, path)
	m := regexp.MustCompile(`(?m)^ExecStart=\S+/headgate (.*)$`).FindStringSubmatch(text)
	if m == nil {
		t.Fatal("no ExecStart")
	}
	takes(t, "headgate.service", strings.Fields(m[1]))
	m = regexp.MustCompile(`(?m)^TimeoutStopSec=(\d+)$`).FindStringSubmatch(text)
	if m == nil {
		t.Fatal("no TimeoutStopSec")
	}
	if patience, _ := time.ParseDuration(m[1] + "s"); patience < config.Single(config.Org{}).Drain+10*time.Second {
		t.Errorf("it is killed after %v, while it drains", patience)
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not here")
	}
	// With a command that is on this machine.
	own := filepath.Join(t.TempDir(), "headgate.service")
	if err := os.WriteFile(own, []byte(strings.Replace(text, "ExecStart=/usr/local/bin/headgate", "ExecStart=/bin/true", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(analyze, "verify", "--man=no", own).CombinedOutput()
	for line := range bytes.Lines(out) {
		if bytes.Contains(line, []byte("headgate.service")) {
			t.Errorf("systemd-analyze: %s", line)
		}
	}
	if err != nil && len(out) == 0 {
		t.Errorf("systemd-analyze: %v", err)
	}
}

// manifest is as much of Kubernetes' objects as is looked at.
type manifest struct {
	Kind     string
	Metadata struct{ Name string }
	Data     map[string]string
	Spec     struct {
		Replicas int
		Template struct {
			Spec struct {
				TerminationGracePeriodSeconds int `yaml:"terminationGracePeriodSeconds"`
				Containers                    []struct {
					Args []string
					Env  []struct{ Name string }
				}
			}
		}
	}
}

// The manifests can be read; the file in them is one that the gateway takes, with
// the variables that the container has; and it has time for draining.
func TestKubernetesManifests(t *testing.T) {
	objects := map[string]manifest{}
	for d := yaml.NewDecoder(strings.NewReader(read(t, "../../deploy/kubernetes/headgate.yaml"))); ; {
		var m manifest
		if err := d.Decode(&m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		objects[m.Kind] = m
	}
	for _, kind := range []string{"ConfigMap", "Service", "StatefulSet", "NetworkPolicy"} {
		if objects[kind].Metadata.Name != "headgate" {
			t.Errorf("there is no %s", kind)
		}
	}
	set := objects["StatefulSet"].Spec
	if set.Replicas != 1 || len(set.Template.Spec.Containers) != 1 {
		t.Fatalf("%+v", set)
	}
	container := set.Template.Spec.Containers[0]
	takes(t, "StatefulSet", container.Args)
	path := filepath.Join(t.TempDir(), "gateway.yaml")
	if err := os.WriteFile(path, []byte(objects["ConfigMap"].Data["gateway.yaml"]), 0o600); err != nil {
		t.Fatal(err)
	}
	file, warnings, err := config.Load(path, func(name string) string {
		for _, e := range container.Env {
			if e.Name == name {
				return "something"
			}
		}
		return ""
	})
	if err != nil || len(warnings) > 0 {
		t.Fatalf("the file: %v, %v", err, warnings)
	}
	if patience := time.Duration(set.Template.Spec.TerminationGracePeriodSeconds) * time.Second; patience < file.Drain+10*time.Second {
		t.Errorf("it is killed after %v, while it drains for %v", patience, file.Drain)
	}
}
