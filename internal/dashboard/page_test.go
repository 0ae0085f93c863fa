package dashboard

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fake is a source whose only org sends ten requests a second.
type fake struct {
	mu    sync.Mutex
	view  func(n int) View // of the n-th call, from 0; nil for the usual one
	calls int
	did   []string
	err   error
}

func (f *fake) View(context.Context) View {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.calls
	f.calls++
	if f.view != nil {
		return f.view(n)
	}
	return View{At: time.Now(), Version: "v1", Orgs: []Org{orgAt(n)}}
}

func orgAt(n int) Org {
	return Org{
		Name:    "acme",
		Limits:  []Limit{{Name: "l", Scope: "s", Level: float64(n), Sent: uint64(10 * n), Accepted: uint64(9 * n), Rejected: uint64(n)}},
		Callers: []Caller{{Name: "c", Sent: uint64(10 * n)}},
	}
}

func (f *fake) do(what ...string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.did = append(f.did, strings.Join(what, " "))
	return f.err
}

func (f *fake) Resolve(_ context.Context, id, action string) error {
	return f.do("resolve", id, action)
}
func (f *fake) Pause(_ context.Context, org string) error  { return f.do("pause", org) }
func (f *fake) Resume(_ context.Context, org string) error { return f.do("resume", org) }
func (f *fake) Cancel(_ context.Context, id string) error  { return f.do("cancel", id) }

func newPage(t *testing.T, cfg Config) *Page {
	t.Helper()
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// run runs p for as long as the test, and fails it if that goes wrong.
func run(t *testing.T, p *Page) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error("Run:", err)
		}
	}
}

// browser is a ResponseWriter that hands on each flushed piece, and waits with
// a write for as long as it is told to.
type browser struct {
	header http.Header
	status int
	mu     sync.Mutex
	text   strings.Builder
	block  chan struct{} // nil, or a Write waits for it
}

func (b *browser) Header() http.Header { return b.header }
func (b *browser) WriteHeader(s int)   { b.status = s }
func (b *browser) Flush()              {}
func (b *browser) Write(p []byte) (int, error) {
	if b.block != nil {
		<-b.block
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *browser) got() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// look opens the stream of events; the channel is closed when it has ended.
func look(ctx context.Context, h http.Handler, target string) (*browser, chan struct{}) {
	b := &browser{header: http.Header{}}
	return b, lookWith(ctx, h, target, b)
}

func lookWith(ctx context.Context, h http.Handler, target string, b *browser) chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h.ServeHTTP(b, httptest.NewRequestWithContext(ctx, http.MethodGet, target, nil))
	}()
	return ended
}

type sse struct{ name, data string }

// parse reads what a browser got, by the rules of server-sent events.
func parse(t *testing.T, text string) []sse {
	t.Helper()
	if text == "" {
		return nil
	}
	if !strings.HasSuffix(text, "\n\n") {
		t.Fatalf("the last event is not ended: %q", text[max(0, len(text)-80):])
	}
	var events []sse
	for block := range strings.SplitSeq(strings.TrimSuffix(text, "\n\n"), "\n\n") {
		var e sse
		var data []string
		for line := range strings.SplitSeq(block, "\n") {
			field, value, _ := strings.Cut(line, ": ")
			switch field {
			case "event":
				e.name = value
			case "data":
				data = append(data, value)
			default:
				t.Fatalf("a line of no known field: %q", line)
			}
		}
		e.data = strings.Join(data, "\n")
		if !json.Valid([]byte(e.data)) {
			t.Fatalf("not JSON: %s", e.data)
		}
		events = append(events, e)
	}
	return events
}

// seen is what the script reads of a view.
type seen struct {
	Overview struct {
		At    int64
		Every int64
		Orgs  []struct {
			Name string
			Rate float64
		}
	}
	Org *struct {
		Name    string
		Over    int64
		Limits  []struct{ Level, Rates any }
		Callers []struct {
			Name string
			Sent int
		}
	}
}

func read[T any](t *testing.T, data string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(data), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

type past struct {
	At     []int64
	Limits []struct {
		Name, Scope                     string
		Level, Sent, Accepted, Rejected []*float64
	}
}

func TestHistoryThenLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPage(t, Config{Source: &fake{}, Prefix: "/headgate", Keep: 5 * time.Second})
		stop := run(t, p)
		time.Sleep(9500 * time.Millisecond) // views 0 to 9 are taken
		ctx, cancel := context.WithCancel(t.Context())
		b, ended := look(ctx, p.Handler(), "/headgate/events?org=acme")
		synctest.Wait()
		events := parse(t, b.got())
		if len(events) != 2 || events[0].name != "history" || events[1].name != "view" {
			t.Fatalf("at once there came %v", events)
		}
		h := read[past](t, events[0].data)
		if len(h.At) != 6 || h.At[5]-h.At[0] != 5000 {
			t.Fatalf("the history's times: %v", h.At)
		}
		l := h.Limits[0]
		for i := range h.At {
			if *l.Level[i] != float64(4+i) || *l.Sent[i] != 10 || *l.Accepted[i] != 9 || *l.Rejected[i] != 1 {
				t.Errorf("point %d: level %v, sent %v, accepted %v, rejected %v", i, *l.Level[i], *l.Sent[i], *l.Accepted[i], *l.Rejected[i])
			}
		}
		if v := read[seen](t, events[1].data); v.Overview.At != h.At[5] || v.Org == nil || v.Org.Name != "acme" {
			t.Errorf("the first view is %s", events[1].data)
		}

		time.Sleep(3 * time.Second)
		synctest.Wait()
		events = parse(t, b.got())[2:]
		if len(events) != 3 {
			t.Fatalf("in three seconds there came %d views", len(events))
		}
		for i, e := range events {
			v := read[seen](t, e.data)
			if v.Overview.At != h.At[5]+int64(i+1)*1000 || v.Org.Limits[0].Level != float64(10+i) {
				t.Errorf("view %d: %s", i, e.data)
			}
			if v.Overview.Orgs[0].Rate != 10 {
				t.Errorf("view %d: the org sends %v a second", i, v.Overview.Orgs[0].Rate)
			}
		}
		cancel()
		<-ended
		if n := p.lookers(); n != 0 {
			t.Errorf("%d streams are left", n)
		}
		stop()
	})
}

func (p *Page) lookers() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.streams)
}

func TestEventsHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPage(t, Config{Source: &fake{}})
		stop := run(t, p)
		b, ended := look(t.Context(), p.Handler(), "/events")
		synctest.Wait()
		for name, want := range map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-store"} {
			if got := b.header.Get(name); got != want {
				t.Errorf("%s: %q", name, got)
			}
		}
		if v := read[seen](t, parse(t, b.got())[1].data); v.Org != nil || len(v.Overview.Orgs) != 1 || v.Overview.Every != 1000 {
			t.Errorf("with no org open the view is %+v", v)
		}
		stop()
		<-ended // Run's end is the stream's

		head := httptest.NewRecorder()
		p.Handler().ServeHTTP(head, httptest.NewRequest(http.MethodHead, "/events", nil))
		if head.Code != http.StatusOK {
			t.Errorf("HEAD: %d", head.Code)
		}
		late := httptest.NewRecorder()
		p.Handler().ServeHTTP(late, httptest.NewRequest(http.MethodGet, "/events", nil))
		if late.Code != http.StatusServiceUnavailable || late.Header().Get("Retry-After") == "" {
			t.Errorf("after Run: %d", late.Code)
		}
	})
}

// A browser that comes before the first view waits for it, or goes.
func TestEventsBeforeRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPage(t, Config{Source: &fake{}})
		ctx, cancel := context.WithCancel(t.Context())
		_, gone := look(ctx, p.Handler(), "/events")
		b, ended := look(t.Context(), p.Handler(), "/events")
		synctest.Wait()
		cancel()
		<-gone
		if b.got() != "" {
			t.Errorf("before the first view there came %q", b.got())
		}
		stop := run(t, p)
		synctest.Wait()
		if events := parse(t, b.got()); len(events) != 2 {
			t.Errorf("with the first view there came %v", events)
		}
		stop()
		<-ended
	})
}

func TestSlowBrowserIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPage(t, Config{Source: &fake{}})
		stop := run(t, p)
		slow := &browser{header: http.Header{}, block: make(chan struct{})}
		slowEnded := lookWith(t.Context(), p.Handler(), "/events", slow)
		quick, quickEnded := look(t.Context(), p.Handler(), "/events")
		synctest.Wait()
		time.Sleep(8500 * time.Millisecond)
		if n := p.lookers(); n != 2 {
			t.Errorf("after 8 views %d browsers are left: the backlog is %d", n, backlog)
		}
		time.Sleep(3 * time.Second)
		if n := p.lookers(); n != 1 {
			t.Errorf("%d browsers are left", n)
		}
		if n := len(parse(t, quick.got())); n != 2+11 {
			t.Errorf("the quick one has got %d events", n)
		}
		close(slow.block)
		<-slowEnded
		stop()
		<-quickEnded
	})
}

func TestClientsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPage(t, Config{Source: &fake{}, Clients: 2})
		stop := run(t, p)
		ctx, cancel := context.WithCancel(t.Context())
		_, first := look(ctx, p.Handler(), "/events")
		_, second := look(t.Context(), p.Handler(), "/events")
		synctest.Wait()
		third := httptest.NewRecorder()
		p.Handler().ServeHTTP(third, httptest.NewRequest(http.MethodGet, "/events", nil))
		if third.Code != http.StatusServiceUnavailable || third.Header().Get("Retry-After") == "" || third.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("the third: %d %v", third.Code, third.Header())
		}
		cancel()
		<-first
		fourth, ended := look(t.Context(), p.Handler(), "/events")
		synctest.Wait()
		if fourth.status != 0 || fourth.got() == "" {
			t.Errorf("where one has gone, the next gets %d", fourth.status)
		}
		stop()
		<-second
		<-ended
	})
}

// A clock that is put back begins the plots again, in every browser.
func TestClockPutBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		f := &fake{view: func(n int) View {
			at := start.Add(time.Duration(n) * time.Second)
			if n >= 5 {
				at = at.Add(-time.Hour)
			}
			return View{At: at, Orgs: []Org{orgAt(n)}}
		}}
		p := newPage(t, Config{Source: f})
		stop := run(t, p)
		_, ended := look(t.Context(), p.Handler(), "/events?org=acme")
		time.Sleep(6500 * time.Millisecond)
		<-ended
		b, ended := look(t.Context(), p.Handler(), "/events?org=acme")
		synctest.Wait()
		if h := read[past](t, parse(t, b.got())[0].data); len(h.At) != 2 {
			t.Errorf("the history has %d views", len(h.At))
		}
		stop()
		<-ended
	})
}

// A view that brings nothing new is none: the page shows that it is old.
func TestViewOfTheSameInstant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := time.Now()
		p := newPage(t, Config{Source: &fake{view: func(n int) View { return View{At: at, Orgs: []Org{orgAt(n)}} }}})
		stop := run(t, p)
		b, ended := look(t.Context(), p.Handler(), "/events")
		time.Sleep(5 * time.Second)
		if n := len(parse(t, b.got())); n != 2 {
			t.Errorf("%d events", n)
		}
		stop()
		<-ended
	})
}

func TestWhatIsNotKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		long := strings.Repeat("ü", 1000)
		f := &fake{view: func(int) View {
			return View{Orgs: []Org{{ // At is left to the page
				Name: "acme", Trouble: long,
				Limits:  []Limit{{Name: "l", Rate: math.NaN(), Level: math.Inf(1), Others: math.Inf(-1)}},
				Waiting: []Waiting{{Path: "/\n\ndata: {}\n\n", Why: "\xff"}},
				Unknown: make([]Execution, 80), Queued: make([]Execution, 80),
			}}}
		}}
		p := newPage(t, Config{Source: f})
		stop := run(t, p)
		b, ended := look(t.Context(), p.Handler(), "/events?org=acme")
		synctest.Wait()
		events := parse(t, b.got())
		if len(events) != 2 {
			t.Fatalf("%d events", len(events))
		}
		got := read[struct {
			Overview struct{ At int64 }
			Org      struct {
				Trouble     string
				Limits      []map[string]any
				Waiting     []map[string]any
				UnknownRows []map[string]any
				QueuedRows  []map[string]any
			}
		}](t, events[1].data)
		if got.Overview.At != time.Now().UnixMilli() {
			t.Errorf("a view without a time is of %d", got.Overview.At)
		}
		if l := got.Org.Limits[0]; l["rate"] != nil || l["level"] != nil || l["others"] != nil {
			t.Errorf("what is not finite is %v", l)
		}
		if w := got.Org.Waiting[0]; w["since"] != nil || w["expected"] != nil || w["why"] != "\ufffd" {
			t.Errorf("a call of which little is known is %v", w)
		}
		if got.Org.Trouble != strings.Repeat("ü", maxText/2)+"…" {
			t.Errorf("a long text is %q", got.Org.Trouble)
		}
		if len(got.Org.UnknownRows) != maxRows || len(got.Org.QueuedRows) != maxRows {
			t.Errorf("of 80 each there are %d and %d", len(got.Org.UnknownRows), len(got.Org.QueuedRows))
		}
		stop()
		<-ended
	})
}

func TestRunTwice(t *testing.T) {
	p := newPage(t, Config{Source: &fake{}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if err := p.Run(ctx); err == nil {
		t.Error("a second Run is no error")
	}
}

func TestConfig(t *testing.T) {
	for name, cfg := range map[string]Config{
		"Source":   {},
		"Prefix":   {Source: &fake{}, Prefix: "headgate"},
		"Prefix ":  {Source: &fake{}, Prefix: "/headgate/"},
		"Prefix {": {Source: &fake{}, Prefix: "/{x}"},
		"Interval": {Source: &fake{}, Interval: -1},
		"Keep":     {Source: &fake{}, Keep: -time.Second},
		"Keep ":    {Source: &fake{}, Keep: 1000 * time.Hour},
		"Clients":  {Source: &fake{}, Clients: -1},
	} {
		field, _, _ := strings.Cut(name, " ")
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An interval of another length is the script's too.
func TestInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPage(t, Config{Source: &fake{}, Interval: 5 * time.Second})
		stop := run(t, p)
		b, ended := look(t.Context(), p.Handler(), "/events?org=acme")
		time.Sleep(11 * time.Second)
		events := parse(t, b.got())
		if len(events) != 4 {
			t.Fatalf("in 11 s there came %d events", len(events))
		}
		v := read[seen](t, events[3].data)
		if v.Overview.Every != 5000 || v.Overview.Orgs[0].Rate != 2 {
			t.Errorf("the last is %s", events[3].data)
		}
		stop()
		<-ended
	})
}

func TestChanges(t *testing.T) {
	f := &fake{}
	var logged strings.Builder
	h := newPage(t, Config{Source: f, Prefix: "/headgate", Logger: slog.New(slog.NewTextHandler(&logged, nil))}).Handler()
	const json = "application/json"
	for _, row := range []struct {
		method, path, kind, body string
		err                      error
		status                   int
		did                      string
	}{
		{"POST", "resolve", json, `{"id":"x","action":"send-again"}`, nil, 204, "resolve x send-again"},
		{"POST", "resolve", json + "; charset=utf-8", `{"id":"x","action":"give-up"}`, nil, 204, "resolve x give-up"},
		{"POST", "cancel", json, `{"id":"x"}`, nil, 204, "cancel x"},
		{"POST", "pause", json, `{"org":"acme"}`, nil, 204, "pause acme"},
		{"POST", "resume", json, `{"org":"acme"}`, nil, 204, "resume acme"},

		{"POST", "cancel", json, `{"id":"x"}`, fmt.Errorf("x: %w", ErrNotFound), 404, "cancel x"},
		{"POST", "cancel", json, `{"id":"x"}`, fmt.Errorf("x: %w", ErrConflict), 409, "cancel x"},
		{"POST", "cancel", json, `{"id":"x"}`, errors.New("the disk is full"), 500, "cancel x"},

		{"POST", "resolve", json, `{"id":"x","action":"again"}`, nil, 400, ""},
		{"POST", "resolve", json, `{"id":"","action":"give-up"}`, nil, 400, ""},
		{"POST", "pause", json, `{"id":"acme"}`, nil, 400, ""},
		{"POST", "pause", json, `{"org":"acme","force":true}`, nil, 400, ""},
		{"POST", "pause", json, `{"org":"acme"} {}`, nil, 400, ""},
		{"POST", "pause", json, ``, nil, 400, ""},
		{"POST", "pause", json, `{"org":"` + strings.Repeat("a", maxBody) + `"}`, nil, 413, ""},
		{"POST", "pause", "application/x-www-form-urlencoded", `org=acme`, nil, 415, ""},
		{"POST", "pause", "text/plain", `{"org":"acme"}`, nil, 415, ""},
		{"POST", "pause", "", `{"org":"acme"}`, nil, 415, ""},
		{"GET", "pause", json, `{"org":"acme"}`, nil, 405, ""},
		{"PUT", "resolve", json, `{"id":"x","action":"give-up"}`, nil, 405, ""},
		{"POST", "events", json, `{}`, nil, 405, ""},
		{"POST", "", json, `{}`, nil, 405, ""},
		{"POST", "other", json, `{}`, nil, 404, ""},
	} {
		f.did, f.err = nil, row.err
		r := httptest.NewRequest(row.method, "/headgate/"+row.path, strings.NewReader(row.body))
		if row.kind != "" {
			r.Header.Set("Content-Type", row.kind)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		name := row.method + " " + row.path + " " + row.kind + " " + fmt.Sprintf("%.40s", row.body)
		if w.Code != row.status {
			t.Errorf("%s: %d, want %d: %s", name, w.Code, row.status, w.Body)
		}
		if did := strings.Join(f.did, ", "); did != row.did {
			t.Errorf("%s: did %q, want %q", name, did, row.did)
		}
		if row.status != 204 && row.status != 404 && row.status != 405 || row.err != nil {
			detail := read[struct{ Detail string }](t, w.Body.String()).Detail
			if detail == "" || row.err != nil && detail != row.err.Error() {
				t.Errorf("%s: says %q", name, detail)
			}
		}
		guarded(t, w.Header())
	}
	if !strings.Contains(logged.String(), "execution=x action=give-up") {
		t.Error("a change is not logged")
	}
}

// guarded checks what each answer must have.
func guarded(t *testing.T, h http.Header) {
	t.Helper()
	for name, want := range map[string]string{
		"X-Content-Type-Options":       "nosniff",
		"Referrer-Policy":              "no-referrer",
		"X-Frame-Options":              "DENY",
		"Cross-Origin-Opener-Policy":   "same-origin",
		"Cross-Origin-Resource-Policy": "same-origin",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	policy := h.Get("Content-Security-Policy")
	for _, part := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"} {
		if !slices.Contains(strings.Split(policy, "; "), part) {
			t.Errorf("the policy %q lacks %q", policy, part)
		}
	}
	for _, part := range []string{"unsafe", "http:", "https:", "data:", "*"} {
		if strings.Contains(policy, part) {
			t.Errorf("the policy %q has %q", policy, part)
		}
	}
}

func TestAssets(t *testing.T) {
	h := newPage(t, Config{Source: &fake{}, Prefix: "/headgate"}).Handler()
	get := func(path, tag string) *http.Response {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		if tag != "" {
			r.Header.Set("If-None-Match", tag)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Result()
	}
	for path, kind := range map[string]string{
		"":                               "text/html; charset=utf-8",
		"assets/page.js":                 "text/javascript; charset=utf-8",
		"assets/page.css":                "text/css; charset=utf-8",
		"assets/icon.svg":                "image/svg+xml",
		"assets/uplot/uPlot.iife.min.js": "text/javascript; charset=utf-8",
		"assets/uplot/uPlot.min.css":     "text/css; charset=utf-8",
	} {
		r := get("/headgate/"+path, "")
		body, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != kind || len(body) == 0 {
			t.Errorf("%q: %d %q, %d bytes, %v", path, r.StatusCode, r.Header.Get("Content-Type"), len(body), err)
		}
		guarded(t, r.Header)
		tag := r.Header.Get("ETag")
		if tag == "" || r.Header.Get("Cache-Control") != "no-cache" {
			t.Errorf("%q: ETag %q, Cache-Control %q", path, tag, r.Header.Get("Cache-Control"))
		}
		if r := get("/headgate/"+path, tag); r.StatusCode != http.StatusNotModified {
			t.Errorf("%q asked for again: %d", path, r.StatusCode)
		}
	}
	for _, path := range []string{"/", "/headgate/assets/", "/headgate/assets/uplot/LICENSE", "/headgate/assets/none.js", "/headgate/assets/%2e%2e/page.go", "/headgate/index.html"} {
		if r := get(path, ""); r.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d", path, r.StatusCode)
		}
	}
}

// What the page loads is there, and is the page's own.
func TestPageIsWhole(t *testing.T) {
	assets := loadAssets()
	html := string(assets["index.html"].content)
	for part := range strings.SplitSeq(html, `"`) {
		if name, ok := strings.CutPrefix(part, "assets/"); ok && assets[name].content == nil {
			t.Errorf("index.html loads %s, which is not there", part)
		}
	}
	for name, a := range assets {
		if strings.HasPrefix(name, "uplot/") {
			continue
		}
		text := strings.ReplaceAll(string(a.content), "http://www.w3.org/2000/svg", "")
		for _, bad := range []string{"http:", "https:", "innerHTML", "outerHTML", "insertAdjacent", "document.write", " style=", " onclick=", "<script>", "<style"} {
			if strings.Contains(text, bad) {
				t.Errorf("%s has %q", name, bad)
			}
		}
	}
	if licence, err := files.ReadFile("assets/uplot/LICENSE"); err != nil || !strings.Contains(string(licence), "MIT") {
		t.Error("uPlot's licence is not beside it")
	}
}

// The bounds that a server sets on ordinary answers do not end the stream, and
// its end leaves the server free to shut down.
func TestServersBounds(t *testing.T) {
	p := newPage(t, Config{Source: &fake{}, Interval: 20 * time.Millisecond})
	stop := run(t, p)
	server := httptest.NewUnstartedServer(p.Handler())
	server.Config.ReadTimeout, server.Config.WriteTimeout = 50*time.Millisecond, 50*time.Millisecond
	server.Start()
	defer server.Close()
	r, err := server.Client().Get(server.URL + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	lines := bufio.NewScanner(r.Body)
	views := 0
	for views < 12 && lines.Scan() {
		if lines.Text() == "event: view" {
			views++
		}
	}
	if views < 12 {
		t.Fatalf("the stream ended after %d views: %v", views, lines.Err())
	}
	stop()
	for lines.Scan() {
	}
	if err := lines.Err(); err != nil {
		t.Errorf("the end of the stream: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := server.Config.Shutdown(ctx); err != nil {
		t.Error("shutting down:", err)
	}
}

// A writer that can't flush would leave the page waiting: that is said.
func TestNoFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged strings.Builder
		p := newPage(t, Config{Source: &fake{}, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
		stop := run(t, p)
		synctest.Wait()
		p.Handler().ServeHTTP(struct{ http.ResponseWriter }{httptest.NewRecorder()}, httptest.NewRequest(http.MethodGet, "/events", nil))
		if !strings.Contains(logged.String(), "can't flush") {
			t.Errorf("logged: %s", logged.String())
		}
		stop()
	})
}
