package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/bench/contender"
)

// small is a contest that takes half a second.
const small = `
- name: small
  title: A <small> one
  about: Over soon.
  calls: 30
  callers: 10
  deadline: 10s
  told: {rate: 50, burst: 10}
  limits: [{rate: 50, burst: 10}]
- name: three
  processes: 3
  calls: 8
  callers: 2
  deadline: 10s
  told: {rate: 50, burst: 10}
  limits: [{per: org, rate: 50, burst: 10}]
`

func fileOf(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "scenarios.yaml")
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// A contest through the front, with real servers and clients.
func TestContest(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	var stdout, stderr bytes.Buffer
	err := run(t.Context(), []string{"-scenarios", fileOf(t, small), "-runs", "1", "-out", dir,
		"-only", "*/headgate*,*/x-time-rate,*/failsafe-limiter"}, &stdout, &stderr)
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	for _, want := range []string{"A <small> one (small)", "three", "headgate  ", "headgate, told nothing", "x/time/rate", "ideal 0.40 s", "24 calls by 6 callers in 3 of 3 processes"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("%q is not in the table:\n%s", want, stdout.String())
		}
	}
	if strings.Contains(stdout.String(), "told wrong") {
		t.Error("the client that is told wrong plays, and there is nothing wrong to tell")
	}
	if got := strings.Count(stderr.String(), "% of 429"); got != 8 {
		t.Errorf("%d lines of progress, want 8:\n%s", got, stderr.String())
	}

	text, err := os.ReadFile(filepath.Join(dir, "results.csv"))
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil || len(rows) != 1+8 {
		t.Fatalf("%d rows, %v:\n%s", len(rows), err, text)
	}
	column := func(name string) int { return slices.Index(rows[0], name) }
	for _, row := range rows[1:] {
		if row[column("contender")] != "headgate" {
			continue
		}
		for _, name := range []string{"early", "lost", "doubled", "cut_by_deadline"} {
			if row[column(name)] != "0" {
				t.Errorf("%s is %s for headgate in front of a limit that it knows", name, row[column(name)])
			}
		}
		if row[column("accepted")] != row[column("calls")] {
			t.Errorf("%s of %s accepted", row[column("accepted")], row[column("calls")])
		}
		if (row[column("fairness")] == "") != (row[column("scenario")] == "small") {
			t.Errorf("fairness is %q in %s", row[column("fairness")], row[column("scenario")])
		}
	}

	page, err := os.ReadFile(filepath.Join(dir, "results.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"![A <small> one: calls over time](small.svg)", "(three.svg)", "| headgate |", "- Go: ", "- date: "} {
		if !strings.Contains(string(page), want) {
			t.Errorf("%q is not in the page", want)
		}
	}
	for _, name := range []string{"small.svg", "three.svg"} {
		picture, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		panels := 0
		for d := xml.NewDecoder(bytes.NewReader(picture)); ; {
			token, err := d.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if e, ok := token.(xml.StartElement); ok && e.Name.Local == "g" {
				panels++
			}
		}
		if panels != 4 {
			t.Errorf("%s has %d panels, want 4", name, panels)
		}
		for _, bad := range []string{"NaN", "Inf", "%!"} {
			if bytes.Contains(picture, []byte(bad)) {
				t.Errorf("%s holds %s", name, bad)
			}
		}
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 4 {
		t.Errorf("%d files, want 4: %v", len(entries), entries)
	}
}

// With a real Redis, which all processes share and which is gone afterwards.
func TestRedis(t *testing.T) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is not installed")
	}
	t.Setenv("TMPDIR", t.TempDir())
	var stdout, stderr bytes.Buffer
	dir := t.TempDir()
	if err := run(t.Context(), []string{"-scenarios", fileOf(t, small), "-runs", "1", "-only", "three/redis-rate", "-out", dir}, &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	file, err := os.Open(filepath.Join(dir, "results.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	rows, err := csv.NewReader(file).ReadAll()
	if err != nil || len(rows) != 2 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	refused, err := strconv.Atoi(rows[1][slices.Index(rows[0], "status_429")])
	if err != nil || refused > 3 {
		// Each with a limiter of its own, all six callers would be refused.
		t.Errorf("%d refused, %v: the processes do not share their limiter", refused, err)
	}
	if !strings.Contains(stdout.String(), "redis_rate  ") || !strings.Contains(stdout.String(), "redis-server: ") {
		t.Errorf("got\n%s", stdout.String())
	}
	if left, _ := filepath.Glob(filepath.Join(os.Getenv("TMPDIR"), "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestWithoutRedis(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	var stdout, stderr bytes.Buffer
	if err := run(t.Context(), []string{"-scenarios", fileOf(t, small), "-runs", "1", "-only", "small/redis-rate,small/x-time-rate"}, &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	for _, out := range []string{stdout.String(), stderr.String()} {
		if !strings.Contains(out, "redis_rate is left out") {
			t.Errorf("it does not say that somebody is left out:\n%s", out)
		}
	}
}

// writer passes on what is written and calls a function with it.
type writer struct {
	mu   sync.Mutex
	text bytes.Buffer
	told func(string)
}

func (w *writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text.Write(p)
	w.told(w.text.String())
	return len(p), nil
}

// What is finished is shown after an interrupt, and the rest is not waited for.
func TestInterrupt(t *testing.T) {
	const long = small + `
- name: long
  calls: 1000
  callers: 10
  told: {rate: 10, burst: 10}
  limits: [{rate: 10, burst: 10}]
`
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stderr := &writer{told: func(text string) {
		if strings.Contains(text, "small/headgate/1") {
			cancel()
		}
	}}
	var stdout bytes.Buffer
	dir := t.TempDir()
	begin := time.Now()
	err := run(ctx, []string{"-scenarios", fileOf(t, long), "-runs", "1", "-only", "*/headgate", "-out", dir}, &stdout, stderr)
	var exit *exitError
	if !errors.As(err, &exit) || exit.code != exitInterrupted || exit.err != nil {
		t.Errorf("got %v", err)
	}
	if took := time.Since(begin); took > 8*time.Second {
		t.Errorf("it took %v", took)
	}
	if out := stdout.String(); !strings.Contains(out, "A <small> one") || strings.Contains(out, "(long)") || !strings.Contains(out, "Interrupted: ") {
		t.Errorf("got\n%s", out)
	}
	if page, _ := os.ReadFile(filepath.Join(dir, "results.md")); !strings.Contains(string(page), "**Interrupted: ") {
		t.Error("the page does not say that it is not whole")
	}
}

func TestUsage(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.yaml")
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"a word", []string{"known"}, `"known"`},
		{"an unknown option", []string{"-colour"}, "colour"},
		{"no such file", []string{"-scenarios", missing}, "missing.yaml"},
		{"a bad file", []string{"-scenarios", fileOf(t, "- name: a\n  colour: red\n")}, "scenarios.yaml:2: "},
		{"no runs", []string{"-runs", "-1"}, "-runs"},
		{"too many at once", []string{"-parallel", "1000"}, "-parallel"},
		{"half a pattern", []string{"-only", "known"}, "SCENARIO/CONTENDER"},
		{"a bad pattern", []string{"-only", "known/["}, "syntax error"},
		{"nothing matches", []string{"-only", "unknown/*"}, "-list"},
		{"nobody has a part", []string{"-only", "told-nothing/x-time-rate"}, "-list"},
		{"nothing quick", []string{"-quick", "-scenarios", fileOf(t, small)}, "quick"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			err := run(t.Context(), tt.args, &stdout, &stderr)
			var exit *exitError
			if !errors.As(err, &exit) || exit.code != exitUsage {
				t.Fatalf("got %v, want exit code 2", err)
			}
			if said := err.Error() + stderr.String(); !strings.Contains(said, tt.want) {
				t.Errorf("%q is not in %q", tt.want, said)
			}
			if stdout.Len() > 0 {
				t.Errorf("it wrote %q to standard output", stdout.String())
			}
		})
	}
}

func TestHelpAndList(t *testing.T) {
	for _, args := range [][]string{{"-help"}, {"--help"}, {"-list"}} {
		var stdout, stderr bytes.Buffer
		if err := run(t.Context(), args, &stdout, &stderr); err != nil || stderr.Len() > 0 {
			t.Errorf("%v: %v, %q", args, err, stderr.String())
		}
		if !strings.Contains(stdout.String(), "contender") {
			t.Errorf("%v printed %q", args, stdout.String())
		}
	}
}

// Every built-in cell has its place: the long ones first, those that need the
// machine last, and a quick contest is over in time whatever the contenders do.
func TestCells(t *testing.T) {
	c := &contest{contenders: contender.All(), runs: 3, parallel: 16, redis: &redisServer{}}
	if err := c.read("", false); err != nil {
		t.Fatal(err)
	}
	cells := c.cells()
	seen := map[string]bool{}
	for i, one := range cells {
		if seen[one.String()] {
			t.Errorf("%v is there twice", one)
		}
		seen[one.String()] = true
		if i == 0 {
			continue
		}
		before := cells[i-1].scenario
		if before.Alone && !one.scenario.Alone || before.Alone == one.scenario.Alone && before.Deadline < one.scenario.Deadline {
			t.Errorf("%v comes after %v", one, cells[i-1])
		}
	}
	for _, s := range c.scenarios {
		for _, who := range c.contenders {
			part := seen[s.Name+"/"+who.ID+"/3"]
			want := who.Knows == contender.Nothing || who.Knows == contender.TheLimit && s.Told != nil || who.Knows == contender.SomeFiction && s.Wrong != nil
			if part != want {
				t.Errorf("%s has a part in %s: %v", who.ID, s.Name, part)
			}
		}
	}

	quick := &contest{contenders: c.contenders, runs: 1, parallel: 16, redis: c.redis}
	if err := quick.read("", true); err != nil {
		t.Fatal(err)
	}
	if most := quick.atMost(quick.cells()); most > 3*time.Minute {
		t.Errorf("a quick contest may take %v", most)
	}
}
