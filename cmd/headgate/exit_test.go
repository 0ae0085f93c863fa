package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/headgate/headgate/emulator"
)

// command runs headgate in this process.
func command(t *testing.T, env map[string]string, signals chan os.Signal, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, talk bytes.Buffer
	p := process{args: args, env: func(k string) string { return env[k] }, signals: signals, stdin: strings.NewReader(""), stdout: &out, stderr: &talk}
	code = p.run()
	return code, out.String(), talk.String()
}

func TestExitCodes(t *testing.T) {
	rows := writeRows(t, 3)
	bad := filepath.Join(t.TempDir(), "bad.jsonl")
	if err := os.WriteFile(bad, []byte("nonsense\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	gateway := func(region string) string {
		path := filepath.Join(t.TempDir(), "gateway.yaml")
		if err := os.WriteFile(path, []byte("orgs: {a: {region: "+region+", mode: pass-through}}\n"), 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	emulated := []string{"run", "--emulator", "--emulator-limit", "500/s"}
	srv, url := emulate(t, emulator.Config{Flows: []string{"other"}, Limits: []emulator.Limit{{Rate: 500, Burst: 100}}})
	at := []string{"run", "--limit", "500/s", "--api-url", url, "--login-url", url, "--journal", filepath.Join(t.TempDir(), "j")}
	good := map[string]string{"GENESYSCLOUD_OAUTHCLIENT_ID": "emulator-client", "GENESYSCLOUD_OAUTHCLIENT_SECRET": "emulator-secret"}
	wrong := map[string]string{"GENESYSCLOUD_OAUTHCLIENT_ID": "emulator-client", "GENESYSCLOUD_OAUTHCLIENT_SECRET": "not-it"}
	for _, test := range []struct {
		name string
		env  map[string]string
		args []string
		code int
		says string // on standard error
	}{
		{"all done", nil, append(emulated, rows), 0, "3 rows: 3 done"},
		{"bad row", nil, append(emulated, bad), 2, "bad.jsonl:1:"},
		{"bad row, skipped", nil, append(emulated, "--skip-bad", bad), 1, "1 failed"},
		{"bad flag", nil, append(emulated, "--limit", "0", rows), 2, "--limit"},
		{"unknown command", nil, []string{"walk"}, 2, "walk"},
		{"no credentials", nil, []string{"run", rows}, 3, "GENESYSCLOUD_OAUTHCLIENT_ID"},
		{"wrong credentials", wrong, append(at, rows), 3, "emulator-client"},
		{"unknown region", good, []string{"run", "--region", "europe-paris", rows}, 2, "Paris"},
		{"no such flow", good, append(at, rows), 1, "404"},
		{"a gateway's file that is good", good, []string{"check", gateway("eu-west-1")}, 0, ""},
		{"one that is not", nil, []string{"check", gateway("atlantis")}, 2, "gateway.yaml:1: orgs.a.region"},
		{"help", nil, []string{"--help"}, 0, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			for k, v := range test.env {
				t.Setenv(k, v)
			}
			code, _, stderr := command(t, test.env, nil, test.args...)
			if code != test.code || !strings.Contains(stderr, test.says) {
				t.Errorf("exit %d, want %d; it says:\n%s", code, test.code, stderr)
			}
			if strings.Contains(stderr, "not-it") || strings.Contains(stderr, "emulator-secret") {
				t.Errorf("it shows the secret:\n%s", stderr)
			}
		})
	}
	if r := srv.Report(); r.Executed != 0 || r.ByStatus[404] != 3 {
		t.Errorf("a final no was tried again: %+v", r)
	}
}

// Ctrl-C stops taking rows and lets those in flight end; the same command goes
// on, and nothing is executed twice.
func TestInterruptAndGoOn(t *testing.T) {
	const rows = 60
	srv, url := emulate(t, emulator.Config{Limits: []emulator.Limit{{Rate: 20, Burst: 10}}, Latency: 200 * time.Millisecond, Expected: rows})
	t.Setenv("GENESYSCLOUD_OAUTHCLIENT_ID", "emulator-client")
	t.Setenv("GENESYSCLOUD_OAUTHCLIENT_SECRET", "emulator-secret")
	input := writeRows(t, rows)
	args := []string{"run", "--limit", "20/s", "--burst", "10", "--api-url", url, "--login-url", url, "--progress", "none", "--out", input + ".out", input}
	signals := make(chan os.Signal, 2)
	timer := time.AfterFunc(1500*time.Millisecond, func() { signals <- syscall.SIGINT })
	defer timer.Stop()
	code, stdout, stderr := command(t, nil, signals, args...)
	if code != 130 || !strings.Contains(stderr, "the same command again") || stdout != "" {
		t.Fatalf("exit %d, stdout %q, stderr:\n%s", code, stdout, stderr)
	}
	if _, err := os.Stat(input + ".out"); err == nil {
		t.Error("an interrupted run left results")
	}
	before := srv.Report()
	if before.Executed < 10 || before.Executed >= rows {
		t.Errorf("%d executed before the interruption", before.Executed)
	}
	if before.Unanswered > 0 {
		t.Errorf("%d in flight were given up", before.Unanswered)
	}
	if code, _, stderr = command(t, nil, nil, args...); code != 0 || !strings.Contains(stderr, "60 rows: 60 done") {
		t.Fatalf("going on: exit %d\n%s", code, stderr)
	}
	if r := srv.Report(); r.Executed != rows || r.Doubled > 0 || r.Lost > 0 || r.Rejected > 0 {
		t.Errorf("%+v", r)
	}
	if n := len(readResults(t, input+".out")); n != rows {
		t.Errorf("%d results", n)
	}
}

// A second Ctrl-C gives up what is in flight and loses nothing that was
// recorded: at-most-once leaves it unknown, at-least-once for the next run.
func TestInterruptTwice(t *testing.T) {
	for _, test := range []struct {
		delivery string
		code     int
		says     string
	}{{"at-most-once", 1, "20 unknown"}, {"at-least-once", 130, "20 open"}} {
		t.Run(test.delivery, func(t *testing.T) {
			const rows = 20
			srv, url := emulate(t, emulator.Config{Limits: []emulator.Limit{{Rate: 100, Burst: 20}}, Latency: 4 * time.Second})
			t.Setenv("GENESYSCLOUD_OAUTHCLIENT_ID", "emulator-client")
			t.Setenv("GENESYSCLOUD_OAUTHCLIENT_SECRET", "emulator-secret")
			input := writeRows(t, rows)
			args := []string{"run", "--limit", "100/s", "--burst", "20", "--delivery", test.delivery, "--max-retries", "0",
				"--api-url", url, "--login-url", url, "--progress", "none", "--out", input + ".out", input}
			signals := make(chan os.Signal, 2)
			for _, after := range []time.Duration{time.Second, 1500 * time.Millisecond} {
				timer := time.AfterFunc(after, func() { signals <- syscall.SIGINT })
				defer timer.Stop()
			}
			start := time.Now()
			code, _, stderr := command(t, nil, signals, args...)
			if took := time.Since(start); took > 3500*time.Millisecond {
				t.Errorf("it took %v", took)
			}
			if sent := srv.Report().Executed; code != test.code || sent != rows || !strings.Contains(stderr, test.says) {
				t.Errorf("exit %d with %d sent\n%s", code, sent, stderr)
			}
			outcome := "unknown"
			if test.code == 130 {
				outcome = "done"
				if code, _, stderr := command(t, nil, nil, args...); code != 0 || !strings.Contains(stderr, "20 done rows may have been executed more than once") {
					t.Errorf("going on: exit %d\n%s", code, stderr)
				}
			}
			for _, r := range readResults(t, input+".out") {
				if r.Outcome != outcome || r.MaybeExecuted != 1 {
					t.Errorf("%+v", r)
				}
			}
		})
	}
}

// An attempt that is not answered within --timeout may have been executed.
func TestTimeout(t *testing.T) {
	srv, url := emulate(t, emulator.Config{Limits: []emulator.Limit{{Rate: 100, Burst: 20}}, Latency: 20 * time.Second})
	t.Setenv("GENESYSCLOUD_OAUTHCLIENT_ID", "emulator-client")
	t.Setenv("GENESYSCLOUD_OAUTHCLIENT_SECRET", "emulator-secret")
	start := time.Now()
	code, stdout, stderr := command(t, nil, nil, "run", "--limit", "100/s", "--delivery", "at-most-once", "--timeout", "300ms",
		"--api-url", url, "--login-url", url, "--progress", "none", writeRows(t, 2))
	if code != 1 || !strings.Contains(stderr, "2 unknown") || strings.Count(stdout, "no answer within 300ms") != 2 || time.Since(start) > 10*time.Second {
		t.Errorf("exit %d after %v\n%s%s", code, time.Since(start), stdout, stderr)
	}
	if r := srv.Report(); r.Executed != 2 {
		t.Errorf("%d executed", r.Executed)
	}
}

// A 503 that says when to come again is counted as what it is.
func TestUnavailableInSummary(t *testing.T) {
	_, url := emulate(t, emulator.Config{
		Limits: []emulator.Limit{{Rate: 100, Burst: 20}},
		Script: []emulator.Fault{{Kind: emulator.Unavailable, To: 500 * time.Millisecond, RetryAfter: time.Second}},
	})
	t.Setenv("GENESYSCLOUD_OAUTHCLIENT_ID", "emulator-client")
	t.Setenv("GENESYSCLOUD_OAUTHCLIENT_SECRET", "emulator-secret")
	code, _, stderr := command(t, nil, nil, "run", "--limit", "100/s", "--burst", "20", "--api-url", url, "--login-url", url, "--progress", "none", writeRows(t, 3))
	if code != 0 || !strings.Contains(stderr, "told to come later (503)") {
		t.Errorf("exit %d\n%s", code, stderr)
	}
}
