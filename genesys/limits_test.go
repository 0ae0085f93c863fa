package genesys

import (
	"errors"
	"io"
	"math"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/emulator"
)

// perMinuteOf is the most that fits into a minute.
func perMinuteOf(l headgate.Limit) float64 {
	if l.Window == time.Minute {
		return float64(l.Max)
	}
	return l.Burst + 60*l.Rate
}

func TestLimits(t *testing.T) {
	limits := Limits()
	if len(limits) != 3 {
		t.Fatalf("%d limits, want 3", len(limits))
	}
	for i, want := range []struct {
		name, match string
		per         headgate.Per
		minute      float64 // the most that fits a minute
	}{
		{"client.credentials.token.rate.per.minute", "/api/", headgate.PerToken, 300},
		{"org.app.user.rate.per.minute", "/api/", headgate.PerClient, 3000},
		{"login", "/oauth/token", headgate.PerClient, 65},
	} {
		l := limits[i]
		if err := l.Validate(); err != nil {
			t.Error(err)
		}
		if minute := perMinuteOf(l); l.Name != want.name || l.Match != want.match || l.Per != want.per || math.Abs(minute-want.minute) > 1e-9 {
			t.Errorf("%+v, %v a minute, want %+v", l, minute, want)
		}
	}
	limits[0].Name = "changed"
	if Limits()[0].Name != LimitToken {
		t.Error("the defaults were changed through the slice")
	}
	if l := TokenLimit(50, 100); l.Name != LimitToken || l.Per != headgate.PerToken || l.Match != "/api/" || l.Rate != 50 || l.Burst != 100 {
		t.Errorf("%+v", l)
	}
}

func TestParseLimits(t *testing.T) {
	for _, c := range []struct {
		body       string
		token, org float64
	}{
		{`{"entities":[]}`, 300, 3000},
		{`{"entities":[{"key":"client.credentials.token.rate.per.minute","namespace":"platform.api","value":600},{"key":"token.rate.per.minute","namespace":"platform.api","value":450}]}`, 450, 3000},
		{`{"entities":[{"key":"token.rate.per.minute","value":900},{"key":"client.credentials.token.rate.per.minute","value":600}]}`, 600, 3000},
		{`{"entities":[{"key":"token.rate.per.minute","value":120}]}`, 120, 3000},
		{`{"entities":[{"key":"org.app.user.rate.per.minute","value":6000},{"key":"other","value":1},{"key":"login","value":1}]}`, 300, 6000},
		{`{"entities":[{"key":"token.rate.per.minute","namespace":"architect","value":1}]}`, 300, 3000},
		{`{"entities":[{"key":"token.rate.per.minute","value":0},{"key":"token.rate.per.minute","value":-5},{"key":"token.rate.per.minute","value":"many"}]}`, 300, 3000},
		{`{"entities":[{"key":"token.rate.per.minute","value":1}]}`, 1, 3000},
	} {
		limits, err := parseLimits([]byte(c.body))
		if err != nil || len(limits) != 3 {
			t.Errorf("%s: %v, %v", c.body, limits, err)
			continue
		}
		for i, want := range []float64{c.token, c.org, 65} {
			if got := perMinuteOf(limits[i]); math.Abs(got-want) > 1e-9 {
				t.Errorf("%s: %s is %v a minute, want %v", c.body, limits[i].Name, got, want)
			}
		}
	}
	for _, body := range []string{``, `{`, `[]`, `{}`, `null`} {
		if limits, err := parseLimits([]byte(body)); err == nil {
			t.Errorf("%q: %v, want an error", body, limits)
		}
	}
}

func TestFetchLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, emulator.Config{Limits: []emulator.Limit{
			{Name: LimitToken, Algorithm: emulator.Fixed, Max: 120},
			{Name: LimitOrgUser, Per: emulator.PerClient, Algorithm: emulator.Fixed, Max: 1200},
		}}, Config{})
		own, err := p.org.WithOwnLimits(t.Context())
		if err != nil || own == p.org || own.Tokens != p.org.Tokens {
			t.Fatal(err)
		}
		if own.Tokens.limiter != own.Limiter {
			t.Error("logins go on with the old limiter")
		}
		spent := map[string]float64{}
		for _, s := range own.Limiter.Snapshot() {
			spent[s.Limit] = s.Spent
		}
		if spent[LimitToken] < 0.9 {
			t.Errorf("%v, want what the old limiter knew", spent)
		}
		// The question itself has paid, and the new limiter knows it: 119 in
		// this minute, 120 in the next, and one more.
		start := time.Now()
		for i := range 240 {
			if _, err := own.Flows().Execute(t.Context(), "F", map[string]int{"n": i}); err != nil {
				t.Fatal(err)
			}
		}
		took := time.Since(start)
		if r := p.Emulator.Report(); r.Rejected != 0 || r.Executed != 240 || r.Logins != 1 {
			t.Errorf("%d rejected, %d executed, %d logins, want 0, 240, 1", r.Rejected, r.Executed, r.Logins)
		}
		if ideal := 2 * time.Minute; took < ideal || took > ideal+2*time.Second {
			t.Errorf("took %v, want about %v", took, ideal)
		}
	})
}

func TestFetchLimitsFails(t *testing.T) {
	for _, c := range []struct {
		answer *http.Response
		err    error
		want   string
	}{
		{reply(403, `{"message":"no"}`), nil, "reading the org's limits: the API answered 403 Forbidden: no"},
		{reply(200, `<html>`), nil, "reading the org's limits: "},
		{nil, io.ErrUnexpectedEOF, "reading the org's limits: unexpected EOF"},
	} {
		rt := roundTrip(func(req *http.Request) (*http.Response, error) {
			if req.URL.String() != "https://api.test/x/api/v2/organizations/limits/namespaces/platform.api" {
				t.Errorf("asked %s", req.URL)
			}
			return c.answer, c.err
		})
		limits, err := FetchLimits(t.Context(), rt, "https://api.test/x/")
		if err == nil || !strings.HasPrefix(err.Error(), c.want) || !reflect.DeepEqual(limits, Limits()) {
			t.Errorf("%v, %v, want the defaults and %q", limits, err, c.want)
		}
		if c.err != nil && !errors.Is(err, c.err) {
			t.Errorf("%v does not wrap %v", err, c.err)
		}
	}
}
