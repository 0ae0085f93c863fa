package browser

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/headgate/headgate/internal/dashboard"
)

var pictures = flag.String("pictures", "", "folder for screenshots")

// interval is the time between two views here: a second of the script.
const interval = 50 * time.Millisecond

// gateway serves a page whose source is s, as the gateway would.
func gateway(t *testing.T, s *script) string {
	t.Helper()
	page, err := dashboard.New(dashboard.Config{Source: s, Prefix: "/headgate", Interval: interval, Keep: 10 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background()) // t's ends before the browser is closed
	ended := make(chan error, 1)
	go func() { ended <- page.Run(ctx) }()
	server := httptest.NewServer(http.NewCrossOriginProtection().Handler(page.Handler()))
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		server.Close()
	})
	return server.URL + "/headgate/"
}

// tab is a browser's tab that fails its test for what it writes to the
// console, and for each request to another host.
type tab struct {
	t    *testing.T
	ctx  context.Context
	host string

	mu       sync.Mutex
	quiet    bool // the gateway is away: failed requests are part of the test
	messages []string
}

// browse opens url in a tab of the given size.
func browse(t *testing.T, address string, width, height int64, scheme string) *tab {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("no chromium: .ci/run installs it")
		}
		t.Skip("no chromium on the PATH")
	}
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.DisableGPU, chromedp.Flag("force-color-profile", "srgb"))
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox) // its sandbox refuses root, who runs in a container
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // t's ends before the cleanups
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, _ = chromedp.NewContext(ctx)
	b := &tab{t: t, ctx: ctx, host: u.Host}
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Log("closing the browser:", err)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, m := range b.messages {
			t.Error(m)
		}
	})
	if err := chromedp.Listen(ctx, b.listen); err != nil {
		t.Fatal(err)
	}
	b.prefer(scheme)
	b.do(chromedp.EmulateViewport(width, height), chromedp.Navigate(address))
	return b
}

func (b *tab) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		b.messages = append(b.messages, fmt.Sprintf("console.%s: %v", e.Type, e.Args))
	case *runtime.EventExceptionThrown:
		b.messages = append(b.messages, fmt.Sprintf("exception: %s", (&chromedp.ExceptionError{ExceptionDetails: e.ExceptionDetails}).Error()))
	case *log.EventEntryAdded:
		if !b.quiet {
			b.messages = append(b.messages, fmt.Sprintf("console, %s: %s %s", e.Entry.Level, e.Entry.Text, e.Entry.URL))
		}
	case *network.EventRequestWillBeSent:
		if u, err := url.Parse(e.Request.URL); err != nil || u.Host != b.host {
			b.messages = append(b.messages, "a request to another host: "+e.Request.URL)
		}
	}
}

func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// until waits for an expression to be true. It is asked at each frame, by a
// promise, because a page with this policy lets nobody make code of a string.
func (b *tab) until(expression string) {
	b.t.Helper()
	b.within(time.Minute, expression)
}

func (b *tab) within(d time.Duration, expression string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, d)
	defer cancel()
	promise := `new Promise((done) => { const look = () => { let is = false; try { is = Boolean(` + expression + `); } catch {} if (is) done(true); else requestAnimationFrame(look); }; look(); })`
	if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool](promise, chromedp.EvalAwaitPromise)); err != nil {
		b.t.Fatalf("%s: %v\n%s", expression, err, b.text("document.body.innerText"))
	}
}

func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

func (b *tab) text(expression string) string { b.t.Helper(); return eval[string](b, expression) }

func (b *tab) picture(name string) {
	b.t.Helper()
	if *pictures == "" {
		return
	}
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*pictures, name+".png"), picture, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

func js(s string) string {
	quoted, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(quoted)
}

const open = `!document.querySelector('#org').hidden`

func TestPlotMoves(t *testing.T) {
	s := newScript().alone()
	b := browse(t, gateway(t, s), 1280, 900, "light")
	b.until(open + ` && +document.querySelector('.plot').dataset.points > 20`)
	const level = `+document.querySelector('.plot').dataset.level`
	b.until(level + ` > 80`)
	before := b.pixels()
	s.burst(2000)
	b.until(level + ` < 5`)
	b.until(`document.querySelector('#headline').textContent.includes('calls wait for flow.executions')`)
	b.until(`document.querySelectorAll('#waiting li').length === 50`)
	if after := b.pixels(); after == before {
		t.Error("a burst has left the plot as it was")
	}
	b.until(`document.querySelector('#waiting .reason').textContent === 'flow.executions empty'`)
	b.until(`document.querySelector('#callers').textContent.includes('weight 3')`)
	if title := b.text(`document.title`); title != acme+" · headgate" {
		t.Errorf("the title is %q", title)
	}
}

// pixels is what the first plot's canvas shows.
func (b *tab) pixels() string {
	b.t.Helper()
	return b.text(`document.querySelector('.plot canvas').toDataURL()`)
}

func TestUnknown(t *testing.T) {
	s := newScript().alone()
	b := browse(t, gateway(t, s), 1280, 1400, "light")
	b.until(`document.querySelectorAll('#unknown li').length === 4`)

	// Leaving it changes nothing, and gives the focus back.
	b.do(chromedp.Click(`#unknown li:first-child [data-act=send-again]`))
	b.until(`document.querySelector('#ask').open`)
	if text := b.text(`document.querySelector('#ask').innerText`); !strings.Contains(text, "may be executed twice") {
		t.Errorf("asking for sending again says %q", text)
	}
	b.do(chromedp.KeyEvent(kb.Escape))
	b.until(`!document.querySelector('#ask').open && document.activeElement.dataset.act === 'send-again'`)
	if did := s.did(); did != nil {
		t.Fatalf("Escape did %q", did)
	}

	b.do(chromedp.Click(`#unknown li:first-child [data-act=send-again]`), chromedp.Click(`#ask-yes`))
	b.until(`document.querySelector('#f-unknown').textContent === '3'`)
	b.until(`document.querySelector('#said').textContent === 'Queued again.'`)
	// The focus has gone on to the next one, and what was resolved goes.
	b.until(`document.activeElement.closest('li')?.querySelector('.reason').textContent === '504 Gateway Timeout'`)

	// The rest by keyboard alone: Tab to "Give up", Enter, Tab to the second
	// button, Enter.
	b.do(chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent(kb.Enter))
	b.until(`document.querySelector('#ask').open && document.activeElement.id === 'ask-no'`)
	if text := b.text(`document.querySelector('#ask').innerText`); !strings.Contains(text, "may have been executed, or not") {
		t.Errorf("asking for giving up says %q", text)
	}
	b.do(chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent(kb.Enter))
	b.until(`document.querySelector('#f-unknown').textContent === '2'`)
	if did := s.did(); !slices.Equal(did, []string{"send-again unknown-0", "give-up unknown-1"}) {
		t.Errorf("the buttons did %q", did)
	}

	b.do(chromedp.Click(`#queued li:first-child [data-act=cancel]`), chromedp.Click(`#ask-yes`))
	b.until(`document.querySelector('#said').textContent === 'Cancelled.'`)
	if did := s.did(); !slices.Equal(did, []string{"cancel queued-0"}) {
		t.Errorf("the button did %q", did)
	}
}

// An execution that somebody else has resolved is told, and nothing is hidden.
func TestResolvedElsewhere(t *testing.T) {
	s := newScript().alone()
	b := browse(t, gateway(t, s), 1280, 1400, "light")
	b.until(`document.querySelectorAll('#unknown li').length === 4`)
	b.do(chromedp.Click(`#unknown li:first-child [data-act=give-up]`))
	b.until(`document.querySelector('#ask').open`)
	if err := s.Resolve(t.Context(), "unknown-0", dashboard.GiveUp); err != nil {
		t.Fatal(err)
	}
	b.expectRefusals()
	b.do(chromedp.Click(`#ask-yes`))
	b.until(`document.querySelector('#toast').textContent.includes('execution unknown-0 is no longer so unknown')`)
}

// expectRefusals lets failed requests pass from now on: the browser writes
// them to its console.
func (b *tab) expectRefusals() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.quiet = true
}

// A row that has the focus stays where it is, whatever comes and goes.
func TestRowsHold(t *testing.T) {
	s := newScript().alone()
	b := browse(t, gateway(t, s), 1280, 1400, "light")
	b.until(`document.querySelectorAll('#unknown li').length === 4`)
	b.do(chromedp.Focus(`#unknown li:nth-child(3) [data-act=give-up]`))
	const top = `document.activeElement.getBoundingClientRect().top`
	before := eval[float64](b, top)
	for _, id := range []string{"unknown-0", "unknown-2", "unknown-3"} {
		if err := s.Resolve(t.Context(), id, dashboard.GiveUp); err != nil {
			t.Fatal(err)
		}
	}
	b.until(`document.querySelectorAll('#unknown li.gone').length === 2 && document.querySelectorAll('#unknown li').length === 3`)
	if after := eval[float64](b, top); after != before {
		t.Errorf("the focus has moved from %v to %v", before, after)
	}
	if at := b.text(`document.activeElement.getAttribute('aria-disabled')`); at != "true" {
		t.Errorf("the button of what has gone: aria-disabled=%q", at)
	}
	b.do(chromedp.KeyEvent(kb.Enter))
	if eval[bool](b, `document.querySelector('#ask').open`) {
		t.Error("the button of what has gone still asks")
	}
	b.do(chromedp.Blur(`#unknown li:nth-child(3) [data-act=give-up]`))
	b.until(`document.querySelectorAll('#unknown li').length === 1`)
}

func TestPauseByKeyboard(t *testing.T) {
	s := newScript()
	b := browse(t, gateway(t, s), 1280, 900, "light")
	b.until(`document.querySelectorAll('#org-list li').length === 14`)
	b.do(chromedp.Evaluate[chromedp.Void](`void document.activeElement.blur()`))
	b.tabTo(`document.activeElement.matches('#org-list a') && document.activeElement.textContent.includes(` + js(acme) + `)`)
	b.do(chromedp.KeyEvent(kb.Enter))
	b.until(open)
	b.tabTo(`document.activeElement.id === 'pause'`)
	if outline := b.text(`getComputedStyle(document.activeElement).outlineStyle`); outline != "solid" {
		t.Errorf("the focus can't be seen: its outline is %q", outline)
	}
	for _, word := range []string{"Resume", "Pause"} {
		b.do(chromedp.KeyEvent(kb.Enter))
		b.until(`document.querySelector('#pause').textContent === ` + js(word))
		b.until(`document.activeElement.id === 'pause' && document.activeElement.getAttribute('aria-busy') === null`)
		if word == "Resume" {
			b.until(`document.querySelector('#headline').textContent.startsWith('Paused')`)
			b.until(`document.querySelector('#said').textContent.includes('Paused')`)
		}
	}
	if did := s.did(); !slices.Equal(did, []string{"paused " + acme + ": true", "paused " + acme + ": false"}) {
		t.Errorf("the keys did %q", did)
	}
}

// tabTo presses Tab until the expression is true.
func (b *tab) tabTo(expression string) {
	b.t.Helper()
	for range 60 {
		if eval[bool](b, expression) {
			return
		}
		b.do(chromedp.KeyEvent(kb.Tab))
	}
	b.t.Fatalf("60 times Tab, and not yet %s", expression)
}

func TestManyOrgs(t *testing.T) {
	s := newScript()
	address := gateway(t, s)
	b := browse(t, address, 1280, 900, "light")
	b.until(`document.querySelector('#tally').textContent.includes('1 in trouble: borough')`)
	b.do(chromedp.Click(`#tally a`))
	b.until(`location.hash === '#/borough' && document.querySelector('#headline').textContent === 'Login refused: the platform says invalid_client. 12 calls wait.'`)
	b.do(chromedp.NavigateBack())
	b.until(`document.querySelector('#org').hidden && document.body.dataset.view === 'all'`)
	b.do(chromedp.Click(`#only`))
	b.until(`document.querySelectorAll('#org-list li').length === 5`)
	b.do(chromedp.SendKeys(`#find`, "DAG"))
	b.until(`document.querySelectorAll('#org-list li').length === 1`)
	b.do(chromedp.Click(`#org-list a`))
	b.until(`document.querySelector('#headline').textContent === 'The server has asked to stay away: token.rate.per.minute opens in 41 s. 40 calls wait.'`)

	// The address leads to the org, whatever its name.
	b.do(chromedp.Navigate("about:blank"), chromedp.Navigate(address+"#/"+url.PathEscape(acme)))
	b.until(open + ` && document.querySelector('#org-name').textContent === ` + js(acme))
	b.do(chromedp.Evaluate[chromedp.Void](`void (location.hash = '#/nobody')`))
	b.until(`document.querySelector('#empty').textContent === 'There is no org of this name.'`)
}

func TestConnectionLost(t *testing.T) {
	s := newScript().alone()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	page, err := dashboard.New(dashboard.Config{Source: s, Interval: interval})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = page.Run(ctx) }()
	var mu sync.Mutex
	handler := page.Handler()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		h := handler
		mu.Unlock()
		h.ServeHTTP(w, r)
	}))
	defer server.Close()
	b := browse(t, server.URL, 1280, 900, "light")
	b.until(open + ` && document.body.dataset.link === 'live'`)

	b.expectRefusals()
	cancel() // as when the gateway stops
	b.until(`document.body.dataset.link === 'lost' && document.querySelector('#notice').textContent.startsWith('Connection lost. What you see is of ')`)
	b.picture("lost")

	again, err := dashboard.New(dashboard.Config{Source: s, Interval: interval})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	go func() { _ = again.Run(ctx) }()
	mu.Lock()
	handler = again.Handler()
	mu.Unlock()
	b.until(`document.body.dataset.link === 'live' && document.querySelector('#notice').hidden`)

	mu.Lock()
	handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	mu.Unlock()
	cancel()
	b.until(`document.body.dataset.link === 'signed-out' && document.querySelector('#notice').textContent.includes('no longer signed in')`)
}

// A source that stands still makes a page that says so, though its connection
// lives.
func TestStandsStill(t *testing.T) {
	s := newScript().alone()
	b := browse(t, gateway(t, s), 1280, 900, "light")
	b.until(open + ` && document.body.dataset.link === 'live'`)
	s.stand(true)
	b.within(12*time.Second, `document.body.dataset.link === 'lost'`) // before it tries another connection
	s.stand(false)
	b.until(`document.body.dataset.link === 'live'`)
}

func TestHostileText(t *testing.T) {
	s := newScript().alone()
	b := browse(t, gateway(t, s), 1280, 1400, "light")
	b.until(`document.querySelectorAll('#unknown li').length === 4`)
	b.until(`document.querySelector('#callers').textContent.includes('<img src=x')`)
	if n := eval[int](b, `document.querySelectorAll('main img').length`); n != 0 {
		t.Errorf("%d pictures came out of text", n)
	}
}

// Neither a phone nor a narrow window scrolls sideways, in the list, in an org
// or in a question, and each text is dark on light or light on dark.
func TestLooks(t *testing.T) {
	s := newScript()
	s.every = 90
	address := gateway(t, s)
	for _, screen := range []struct {
		name          string
		width, height int64
	}{{"phone", 360, 780}, {"tablet", 800, 1100}, {"desktop", 1440, 1000}} {
		for _, scheme := range []string{"light", "dark"} {
			t.Run(screen.name+"-"+scheme, func(t *testing.T) {
				b := browse(t, address, screen.width, screen.height, scheme)
				b.until(`document.querySelectorAll('#org-list li').length === 14`)
				b.fits()
				b.picture(screen.name + "-" + scheme + "-all")
				b.do(chromedp.Evaluate[chromedp.Void](`void (location.hash = '#/' + encodeURIComponent(` + js(acme) + `))`))
				b.until(open + ` && +document.querySelector('.plot').dataset.points > 20`)
				if *pictures != "" {
					b.until(`+document.querySelector('.plot').dataset.points > 400 && document.querySelectorAll('#waiting li').length > 40`)
					s.stand(true)
					defer s.stand(false)
				}
				b.fits()
				b.contrast()
				b.plotIn(scheme)
				b.picture(screen.name + "-" + scheme)
				b.do(chromedp.Evaluate[chromedp.Void](`void document.querySelector('#unknown-section').scrollIntoView()`))
				b.picture(screen.name + "-" + scheme + "-unknown")
				b.do(chromedp.Click(`#unknown li:first-child [data-act=send-again]`))
				b.until(`document.querySelector('#ask').open`)
				b.fits()
				b.picture(screen.name + "-" + scheme + "-ask")
			})
		}
	}
}

// The picture of docs/gateway.md, when pictures are asked for.
func TestPicture(t *testing.T) {
	if *pictures == "" {
		t.Skip("no -pictures")
	}
	s := scriptWith("web-chat")
	s.every = 90
	b := browse(t, gateway(t, s)+"#/"+url.PathEscape(acme), 1280, 860, "light")
	b.until(open + ` && +document.querySelector('.plot').dataset.points > 350 && document.querySelectorAll('#waiting li').length > 40`)
	b.until(`+document.querySelector('#f-held').textContent < 400`)
	s.stand(true)
	b.picture("gateway-page")
}

// fits says whether anything reaches beyond the width of the window.
func (b *tab) fits() {
	b.t.Helper()
	wide := eval[[]string](b, `[...document.querySelectorAll('body *')].filter((e) => {
		if (e.closest('.unseen, .skip, .u-wrap') || !e.getClientRects().length) return false;
		const r = e.getBoundingClientRect();
		return r.right > innerWidth + 0.5 || r.left < -0.5;
	}).map((e) => e.tagName + '#' + e.id + '.' + e.className)`)
	if len(wide) > 0 {
		b.t.Errorf("beyond the window: %q", wide)
	}
	if over := eval[int](b, `document.documentElement.scrollWidth - innerWidth`); over > 0 {
		b.t.Errorf("the page is %d px wider than its window", over)
	}
}

// contrast checks each text against what is behind it, as WCAG reckons it.
func (b *tab) contrast() {
	b.t.Helper()
	weak := eval[[]string](b, `(() => {
		const parse = (c) => c.match(/[\d.]+/g).map(Number);
		const lum = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((a, v, i) => a + v * [0.2126, 0.7152, 0.0722][i], 0);
		const ground = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] === 1) return c; } return [255, 255, 255]; };
		const weak = new Set();
		for (const e of document.querySelectorAll('body *')) {
			if (e.closest('.gone, .unseen, noscript, dialog:not([open])') || !e.getClientRects().length) continue;
			if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
			const [a, b] = [lum(parse(getComputedStyle(e).color)), lum(ground(e))];
			const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
			if (ratio < 4.5) weak.add(e.tagName + '.' + e.className + ' ' + ratio.toFixed(2) + ' ' + e.textContent.slice(0, 30));
		}
		return [...weak];
	})()`)
	if len(weak) > 0 {
		b.t.Errorf("hard to read: %q", weak)
	}
}

// ink is how light, from 0 to 255, the numbers at the plot's left axis are: a
// canvas does not follow a style sheet by itself.
const ink = `(() => {
	const canvas = document.querySelector('.plot canvas');
	const copy = new OffscreenCanvas(36 * devicePixelRatio, canvas.height).getContext('2d', { willReadFrequently: true });
	copy.drawImage(canvas, 0, 0);
	const { data } = copy.getImageData(0, 0, copy.canvas.width, copy.canvas.height);
	let sum = 0, n = 0;
	for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 200) { sum += (data[i] + data[i + 1] + data[i + 2]) / 3; n++; }
	return n > 20 ? sum / n : NaN;
})()`

// plotIn checks that the plot's colours are those of the scheme, and of the
// other one as soon as that is wanted.
func (b *tab) plotIn(scheme string) {
	b.t.Helper()
	want := map[string]string{"light": ink + ` < 140`, "dark": ink + ` > 140`}
	other := map[string]string{"light": "dark", "dark": "light"}[scheme]
	b.until(want[scheme])
	b.prefer(other)
	b.until(want[other])
	b.prefer(scheme)
	b.until(want[scheme])
}

// prefer tells the page which colour scheme its reader likes.
func (b *tab) prefer(scheme string) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	}); err != nil {
		b.t.Fatal(err)
	}
}
