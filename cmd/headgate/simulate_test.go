package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Ctrl-C ends a long simulation at once; until then it says how far it is.
func TestInterruptSimulation(t *testing.T) {
	picture := filepath.Join(t.TempDir(), "day.html")
	signals := make(chan os.Signal, 2)
	timer := time.AfterFunc(1300*time.Millisecond, func() { signals <- syscall.SIGINT })
	defer timer.Stop()
	start := time.Now()
	code, stdout, stderr := command(t, nil, signals, "simulate", "--per-day", "100_000_000", "--limit", "2000/s", "--html", picture, "--progress", "plain")
	if took := time.Since(start); code != 130 || stdout != "" || took > 5*time.Second {
		t.Errorf("exit %d after %v\n%s", code, took, stdout)
	}
	for _, says := range []string{"stopping", "/800,000,000", "interrupted; nothing was written"} {
		if !strings.Contains(stderr, says) {
			t.Errorf("it does not say %q:\n%s", says, stderr)
		}
	}
	if _, err := os.Stat(picture); err == nil {
		t.Error("it wrote a picture")
	}
}
