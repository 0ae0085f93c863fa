package browser

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/emulator"
	"github.com/headgate/headgate/genesys"
	"github.com/headgate/headgate/internal/config"
	door "github.com/headgate/headgate/internal/gateway"
)

// realGateway serves a gateway before an emulator. Whatever goes to the flow
// "lost" is executed, and its answer never comes.
func realGateway(t *testing.T) (address string, platform *emulator.Server) {
	t.Helper()
	platform, err := emulator.New(emulator.Config{
		Limits: []emulator.Limit{{Name: genesys.LimitToken, Rate: 20, Burst: 40}},
		Script: []emulator.Fault{{Kind: emulator.CutAfter, Match: "/api/v2/architect/flows/lost/execute"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	api := httptest.NewServer(platform.API())
	t.Cleanup(api.Close)
	file := config.Single(config.Org{
		Name: "acme", APIURL: api.URL, LoginURL: api.URL,
		Credentials: genesys.Credentials{ClientID: emulator.DefaultClientID, ClientSecret: genesys.NewSecret(emulator.DefaultClientSecret)},
		Limits:      []headgate.Limit{genesys.TokenLimit(20, 40)},
	})
	file.Data = t.TempDir()
	g, err := door.Open(door.Config{File: file, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(g)
	t.Cleanup(func() {
		g.Drain(context.Background())
		server.CloseClientConnections()
		server.Close()
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return server.URL, platform
}

// execute has a flow executed through the gateway.
func execute(t *testing.T, address, flow string, n int, fields ...string) int {
	t.Helper()
	req, err := http.NewRequest("POST", address+"/api/v2/architect/flows/"+flow+"/execute", strings.NewReader(fmt.Sprintf(`{"n":%d}`, n)))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// A burst is sent through a real gateway and the plot moves; what became unknown
// is resolved by a click; an org is paused and goes on.
func TestRealGateway(t *testing.T) {
	address, platform := realGateway(t)
	if status := execute(t, address, "flow", 0); status != 200 {
		t.Fatalf("the first call was answered %d", status)
	}
	b := browse(t, address+"/headgate/", 1280, 1400, "light")
	b.until(open + ` && +document.querySelector('.plot').dataset.points > 2`)
	const level = `+document.querySelector('.plot').dataset.level`
	b.until(level + ` > 30`)
	before := b.pixels()
	var wg sync.WaitGroup
	for i := range 120 {
		wg.Go(func() {
			if status := execute(t, address, "flow", i+1); status != 200 {
				t.Errorf("call %d was answered %d", i+1, status)
			}
		})
	}
	b.until(level + ` < 15`)
	b.until(`document.querySelectorAll('#waiting li').length > 0`)
	b.until(`document.querySelector('#waiting .reason').textContent.includes('` + genesys.LimitToken + `')`)
	b.picture("real-gateway")
	wg.Wait()
	if after := b.pixels(); after == before {
		t.Error("a burst has left the plot as it was")
	}

	if status := execute(t, address, "lost", 1, "Prefer: respond-async", "Headgate-Delivery: at-most-once"); status != 202 {
		t.Fatalf("the lost call was answered %d", status)
	}
	b.until(`document.querySelectorAll('#unknown li').length === 1`)
	b.do(chromedp.Click(`#unknown li:first-child [data-act=give-up]`), chromedp.Click(`#ask-yes`))
	b.until(`document.querySelector('#f-unknown').textContent === '0'`)

	b.do(chromedp.Click(`#pause`))
	b.until(`document.querySelector('#org').textContent.includes('aused')`)
	before = fmt.Sprint(platform.Report().Executed)
	if status := execute(t, address, "flow", 1000, "Prefer: respond-async"); status != 202 {
		t.Fatalf("while it is paused a call was answered %d", status)
	}
	b.until(`document.querySelectorAll('#waiting li, #queued li').length > 0`)
	if now := fmt.Sprint(platform.Report().Executed); now != before {
		t.Errorf("%s executed before the pause, %s in it", before, now)
	}
	b.do(chromedp.Click(`#pause`))
	b.until(`document.querySelectorAll('#waiting li').length === 0 && document.querySelector('#f-queued').textContent === '0'`)
}
