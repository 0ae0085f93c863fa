package gateway

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/emulator"
	"github.com/headgate/headgate/genesys"
	"github.com/headgate/headgate/internal/config"
)

const hookSecret = "signs-in-tests"

// receiver is somebody who is told of the end of executions.
type receiver struct {
	*httptest.Server
	t      testing.TB
	mu     sync.Mutex
	answer func(id string, n int) int // the status for the n-th time, from 1; nil: 204
	told   map[string][]executionView
	heard  map[string]int // how often, taken or not
}

func newReceiver(t testing.TB) *receiver {
	r := &receiver{t: t, told: map[string][]executionView{}, heard: map[string]int{}}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) host() string { return strings.TrimPrefix(r.URL, "http://") }

// allow is the change of a file that lets the receiver be told.
func (r *receiver) allow(f *config.File) {
	f.Callbacks = config.Callbacks{Hosts: []string{r.host()}, Secret: genesys.NewSecret(hookSecret)}
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	if err := verify(req.Header.Get("Headgate-Signature"), body); err != nil {
		r.t.Error(err)
	}
	var v executionView
	if err := json.Unmarshal(body, &v); err != nil || v.ID == "" || v.ID != req.Header.Get("Headgate-Execution") {
		r.t.Errorf("told %q, %v", body, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heard[v.ID]++
	status := http.StatusNoContent
	if r.answer != nil {
		status = r.answer(v.ID, r.heard[v.ID])
	}
	if status == http.StatusFound {
		w.Header().Set("Location", "/elsewhere")
	}
	if status == http.StatusNoContent {
		r.told[v.ID] = append(r.told[v.ID], v)
	}
	w.WriteHeader(status)
}

// verify is what docs/http-api.md tells receivers to do.
func verify(signature string, body []byte) error {
	at, mac, ok := strings.Cut(strings.TrimPrefix(signature, "t="), ",v1=")
	seconds, err := strconv.ParseInt(at, 10, 64)
	if age := time.Since(time.Unix(seconds, 0)); !ok || err != nil || age > time.Minute || age < -time.Minute {
		return fmt.Errorf("signature %q", signature)
	}
	h := hmac.New(sha256.New, []byte(hookSecret))
	fmt.Fprintf(h, "%s.%s", at, body)
	if got, err := hex.DecodeString(mac); err != nil || !hmac.Equal(got, h.Sum(nil)) {
		return fmt.Errorf("signature %q is not that of %q", signature, body)
	}
	return nil
}

// of returns what was taken of an execution.
func (r *receiver) of(id string) []executionView {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.told[id]
}

// later makes a call that is kept, and returns it.
func (b *bench) later(n int, fields ...string) executionView {
	b.t.Helper()
	a := b.do("POST", executePath, body(n), append(fields, "Prefer: respond-async", "Content-Type: application/json")...)
	if a.status != 202 {
		b.t.Fatalf("answered %d: %s", a.status, a.body)
	}
	return a.execution(b.t)
}

// owed is how many callbacks are owed, ended or not.
func owed(t testing.TB, o *org) (n int) {
	t.Helper()
	ids, err := o.store.EndedNotes(t.Context(), callbackNote, 0, 1000)
	must(t, err)
	return len(ids)
}

// The end of an execution is told to the address that its caller named, signed,
// again until it is taken, and once then.
func TestCallback(t *testing.T) {
	r := newReceiver(t)
	r.answer = func(_ string, n int) int { return []int{500, 302, 204, 204}[min(n, 4)-1] }
	b := newBench(t, plan{change: r.allow})
	x := b.later(1, "Headgate-Callback: "+r.URL+"/hook")
	wait(t, "the callback", func() bool { return len(r.of(x.ID)) > 0 })
	v := r.of(x.ID)[0]
	if v.State != "done" || v.Status != 200 || len(v.Answer) == 0 {
		t.Errorf("told %+v", v)
	}
	wait(t, "it to be settled", func() bool { return owed(t, b.g.setting().orgs[0]) == 0 })
	r.mu.Lock()
	if r.heard[x.ID] != 3 {
		t.Errorf("tried %d times, want 3: a redirect is followed by nobody", r.heard[x.ID])
	}
	r.mu.Unlock()
	for _, address := range []string{"http://127.0.0.1:1/", "https://elsewhere.example/", "http://elsewhere.example/", "ftp://" + r.host(), r.URL + "#x", "http://u@" + r.host()} {
		if p := b.do("POST", executePath, body(2), "Prefer: respond-async", "Headgate-Callback: "+address).problem(t); p.Status != 400 || !strings.Contains(p.Detail, "Headgate-Callback") {
			t.Errorf("%s: %+v", address, p)
		}
	}
}

// What one process owed and could not deliver the next one does, be the receiver
// away or the process killed; what was delivered is not told again.
func TestCallbackOutlivesProcess(t *testing.T) {
	r := newReceiver(t)
	down := true
	r.answer = func(id string, _ int) int {
		if down && id != "acme.1" {
			return 503
		}
		return 204
	}
	dir := t.TempDir()
	b := newBench(t, plan{change: r.allow, dir: dir})
	first := b.later(1, "Headgate-Callback: "+r.URL)
	wait(t, "the first callback", func() bool { return len(r.of(first.ID)) == 1 })
	second := b.later(2, "Headgate-Callback: "+r.URL)
	b.do("GET", second.Self, "", "Prefer: wait=10")
	o := b.g.setting().orgs[0]
	o.limiter.Pause()
	third := b.later(3, "Headgate-Callback: "+r.URL) // its process never sees its end
	b.end()
	r.mu.Lock()
	down = false
	r.mu.Unlock()
	b.open(nil)
	for _, id := range []string{second.ID, third.ID} {
		wait(t, "the callback of "+id, func() bool { return len(r.of(id)) == 1 })
	}
	wait(t, "all to be settled", func() bool { return owed(t, b.g.setting().orgs[0]) == 0 })
	b.end()
	b.open(nil)
	last := b.later(4, "Headgate-Callback: "+r.URL)
	wait(t, "the last callback", func() bool { return len(r.of(last.ID)) == 1 })
	for _, id := range []string{first.ID, second.ID, third.ID, last.ID} {
		if n := len(r.of(id)); n != 1 {
			t.Errorf("%s was told %d times", id, n)
		}
	}
}

// A receiver that takes nothing costs a bounded number of goroutines, and what
// does not fit in memory is found again.
func TestManyCallbacks(t *testing.T) {
	r := newReceiver(t)
	b := newBench(t, plan{change: r.allow, limits: unlimited()})
	o := b.g.setting().orgs[0]
	before := runtime.NumGoroutine()
	blocked := make(chan struct{})
	r.answer = func(string, int) int { return 204 }
	hold := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		<-blocked
		r.ServeHTTP(w, req)
	})
	r.Config.Handler = hold
	const most, n = 100, 400
	o.post.mu.Lock()
	o.post.most = most
	o.post.mu.Unlock()
	var wg sync.WaitGroup
	for worker := range 32 {
		wg.Go(func() {
			for i := worker; i < n; i += 32 {
				b.later(i, "Headgate-Callback: "+r.URL)
			}
		})
	}
	wg.Wait()
	wait(t, "all to be done", func() bool { return o.status().Queue.Done == n })
	o.post.mu.Lock()
	known := len(o.post.due)
	o.post.mu.Unlock()
	if known > most {
		t.Errorf("%d callbacks in memory", known)
	}
	client.CloseIdleConnections()
	wait(t, "few goroutines", func() bool { return runtime.NumGoroutine() < before+20*callbackAtOnce })
	close(blocked)
	wait(t, "all to be told", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.told) == n
	})
}

// The time between tries doubles, from a second to an hour.
func TestCallbackPause(t *testing.T) {
	tries := 0
	for age := time.Duration(0); age < callbackPatience; tries++ {
		pause := callbackPause(age)
		if pause < 500*time.Millisecond || pause > 90*time.Minute || age > time.Second && age < time.Hour && (pause < age/2 || pause > 2*age) {
			t.Fatalf("after %v again in %v", age, pause)
		}
		age += pause
	}
	if tries < 20 || tries > 80 {
		t.Errorf("%d tries in a day", tries)
	}
}

// Those who wait for an execution leave nothing behind, however they go.
func TestWaitersLeaveNothing(t *testing.T) {
	b := newBench(t, plan{emulator: emulator.Config{}, limits: unlimited()})
	o := b.g.setting().orgs[0]
	b.later(0)
	o.limiter.Pause()
	x := b.later(1)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { b.do("GET", x.Self, "", "Prefer: wait=0.2") })
		wg.Go(func() { b.do("GET", x.Self, "", "Prefer: wait=20") })
		wg.Go(func() { b.do("GET", x.Self, "", "Accept: text/event-stream") })
		wg.Go(func() { b.do("POST", executePath, body(1), "Idempotency-Key: k", "Prefer: wait=0.1") })
		wg.Go(func() {
			req, _ := http.NewRequest("GET", b.url+x.Self, nil)
			req.Header.Set("Accept", "text/event-stream")
			resp, err := client.Do(req)
			if err == nil {
				resp.Body.Close()
			}
		})
	}
	watched := func() (n int) {
		o.hub.mu.Lock()
		defer o.hub.mu.Unlock()
		for _, of := range o.hub.byID {
			n += len(of)
		}
		return n
	}
	wait(t, "40 to wait", func() bool { return watched() == 40 })
	o.limiter.Resume()
	wg.Wait()
	wait(t, "nobody to wait", func() bool {
		o.hub.mu.Lock()
		defer o.hub.mu.Unlock()
		return len(o.hub.byID) == 0
	})
}
