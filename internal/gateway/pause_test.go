package gateway

import (
	"testing"
)

// A pause lasts until somebody resumes it, whatever happens to the process.
func TestPauseOutlivesARestart(t *testing.T) {
	b := newBench(t, plan{})
	paused := func() bool {
		t.Helper()
		return b.g.setting().orgs[0].status().Paused
	}
	restart := func() {
		t.Helper()
		b.end()
		b.open(nil)
	}
	if a := b.do("POST", "/headgate/v1/orgs/acme/pause", ""); a.status != 200 || !paused() {
		t.Fatalf("answered %d; paused: %v", a.status, paused())
	}
	restart()
	if !paused() {
		t.Error("a restart ended the pause")
	}
	if a := b.do("POST", executePath, body(1), "Prefer: wait=0"); a.status != 429 {
		t.Errorf("answered %d in a pause: %s", a.status, a.body)
	}
	if a := b.do("POST", "/headgate/v1/orgs/acme/resume", ""); a.status != 200 || paused() {
		t.Errorf("answered %d; paused: %v", a.status, paused())
	}
	restart()
	if paused() {
		t.Error("a restart began a pause that was over")
	}
}

// A pause that can't be recorded is one all the same, and says so.
func TestPauseThatIsNotRecorded(t *testing.T) {
	b := newBench(t, plan{})
	o := b.g.setting().orgs[0]
	must(t, o.store.Close())
	a := b.do("POST", "/headgate/v1/orgs/acme/pause", "")
	if a.status != 503 || a.problem(t).Detail == "" || !o.limiter.Paused() {
		t.Errorf("answered %d, %s; paused: %v", a.status, a.body, o.limiter.Paused())
	}
}
