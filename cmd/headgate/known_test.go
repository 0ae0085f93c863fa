package main

import (
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/emulator"
)

// The main job in real time, over loopback and through the journal: 1,000
// executions by 200 callers against a bucket of 50/s and 100.
func TestKnownLimitOverLoopback(t *testing.T) {
	const rows = 1000
	srv, url := emulate(t, emulator.Config{Limits: []emulator.Limit{{Rate: 50, Burst: 100}}, Latency: 5 * time.Millisecond, Expected: rows})
	t.Setenv("GENESYSCLOUD_OAUTHCLIENT_ID", "emulator-client")
	t.Setenv("GENESYSCLOUD_OAUTHCLIENT_SECRET", "emulator-secret")
	input := writeRows(t, rows)
	code, _, stderr := command(t, nil, nil, "run", "--limit", "50/s", "--burst", "100", "--api-url", url, "--login-url", url,
		"--progress", "none", "--out", input+".out", input)
	if code != 0 {
		t.Fatalf("exit %d\n%s", code, stderr)
	}
	r := srv.Report()
	use := r.Limits[0]
	t.Logf("span %v, ideal %v: %.4f; %d requests, %d refused, %d early, %d lost, %d doubled\n%s",
		use.Span, use.Ideal, use.Span.Seconds()/use.Ideal.Seconds(), r.Arrivals, r.Rejected, r.Early, r.Lost, r.Doubled, strings.TrimSpace(stderr))
	if use.Span.Seconds() > 1.02*use.Ideal.Seconds() {
		t.Errorf("span %v, want at most 1.02 times %v", use.Span, use.Ideal)
	}
	if r.Rejected > 3 || r.Early > 0 || r.Lost > 0 || r.Doubled > 0 || r.Executed != rows {
		t.Errorf("%d refused, %d early, %d lost, %d doubled, %d executed", r.Rejected, r.Early, r.Lost, r.Doubled, r.Executed)
	}
}
