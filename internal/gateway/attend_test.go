package gateway

import (
	"context"
	"net/http"
	"testing"

	"github.com/headgate/headgate/internal/config"
)

// Those who wait for an execution are bounded as those whose calls are held.
func TestAttendingIsBounded(t *testing.T) {
	b := newBench(t, plan{change: func(f *config.File) { f.Orgs[0].Bounds.Held = 1 }})
	o := b.g.setting().orgs[0]
	o.limiter.Pause()
	x := b.do("POST", executePath, body(1), "Prefer: respond-async").execution(t)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	req, err := http.NewRequestWithContext(ctx, "GET", b.url+x.Self, nil)
	must(t, err)
	req.Header.Set("Accept", "text/event-stream")
	first, err := client.Do(req)
	must(t, err)
	defer first.Body.Close()
	for _, field := range []string{"Accept: text/event-stream", "Prefer: wait=1"} {
		if p := b.do("GET", x.Self, "", field).problem(t); p.Status != 503 || p.Type != problemsPath+overBound.name {
			t.Errorf("%s: %+v", field, p)
		}
	}
	if a := b.do("GET", x.Self, ""); a.status != 200 {
		t.Errorf("who does not wait was answered %d", a.status)
	}
	leave()
	wait(t, "the place to be free", func() bool { return o.attending.Load() == 0 })
	o.limiter.Resume()
}
