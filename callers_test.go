package headgate_test

import (
	"context"
	"fmt"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate"
)

func TestCallersAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("api", 1, 1))
		c := newCrowd()
		ctx, cancel := context.WithCancel(t.Context())
		c.take(t.Context(), l, 0, headgate.Ask{Caller: "b", Weight: 1e9}, answered) // at once
		c.take(t.Context(), l, 1, headgate.Ask{Caller: "b", Weight: 2}, answered)
		c.take(ctx, l, 2, headgate.Ask{Caller: "a"}, answered)
		c.take(t.Context(), l, 3, headgate.Ask{}, answered)
		if got, want := l.Callers(), []headgate.CallerUse{
			{Weight: 1, Waiting: 1}, {Caller: "a", Weight: 1, Waiting: 1}, {Caller: "b", Weight: 2, Waiting: 1, Granted: 1},
		}; !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, want %+v", got, want)
		}
		time.Sleep(500 * ms)
		cancel()
		c.wg.Wait()
		if got, want := l.Callers(), []headgate.CallerUse{
			{Weight: 1, Granted: 1, Waited: 2 * time.Second}, {Caller: "a", Weight: 1, Waited: 500 * ms},
			{Caller: "b", Weight: 2, Granted: 2, Waited: time.Second},
		}; !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, want %+v", got, want)
		}
	})
}

func TestTooManyCallersAreCountedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t)
		for i := range 5000 {
			l.Take(t.Context(), headgate.Ask{Caller: fmt.Sprintf("%04d", i)})
		}
		l.Take(t.Context(), headgate.Ask{Caller: "0003"})
		list := l.Callers()
		if n := len(list); n != 4096 || list[3].Granted != 2 || list[n-1].Caller != "other" || list[n-1].Granted != 5000-4095 {
			t.Errorf("%d callers, %+v, the last is %+v", n, list[3], list[n-1])
		}
	})
}

func TestEstimatesCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := limit("slow", 10, 10)
		slow.Match = "/slow"
		l := exact(t, limit("api", 10, 10), slow)
		take := func() headgate.Permit { p, _ := l.Take(t.Context(), headgate.Ask{Path: "/slow"}); return p }
		take().Return()
		answered(take())
		take().Done(headgate.Observation{})            // no answer
		take().Done(headgate.Observation{Status: 502}) // says nothing
		take()                                         // on its way
		take().Done(refusedFor(time.Second, "slow"))
		type counts struct{ sent, accepted, refused uint64 }
		got := map[string]counts{}
		for _, e := range l.Estimates() {
			got[e.Limit] = counts{e.Sent, e.Accepted, e.Refused}
		}
		if want := (map[string]counts{"api": {5, 1, 0}, "slow": {5, 1, 1}}); !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, want %+v", got, want)
		}
	})
}

// The line is told as it then goes, and when.
func TestLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("api", 10, 1))
		p, _ := l.Take(t.Context(), headgate.Ask{})
		answered(p)
		c := newCrowd()
		for i := range 40 {
			c.take(t.Context(), l, i, headgate.Ask{
				Caller: []string{"a", "a", "a", "b", "c"}[i%5], Weight: []float64{3, 3, 3, 1, 2}[i%5], Priority: i%7/6 - 1, Path: fmt.Sprint("/", i),
			}, answered)
		}
		time.Sleep(250 * ms)
		line := l.Line(30)
		if len(line) != 30 || len(l.Line(0)) != 0 || len(l.Line(100)) != 38 {
			t.Fatalf("%d are told, and %d", len(line), len(l.Line(100)))
		}
		first := headgate.InLine{
			Caller: line[0].Caller, Path: line[0].Path, Priority: -1, Since: c.start, Limit: "api", Expected: 50 * ms,
			Wait: headgate.Wait{Total: 250 * ms, Parts: []headgate.WaitPart{{Limit: "api", Empty: 250 * ms}}},
		}
		if !line[0].Since.Equal(c.start) {
			t.Errorf("it came at %v, want %v", line[0].Since, c.start)
		}
		if line[0].Since = c.start; !reflect.DeepEqual(line[0], first) {
			t.Errorf("%+v, want %+v", line[0], first)
		}
		c.wg.Wait()
		for i, in := range line {
			id := c.order[2+i]
			if in.Path != fmt.Sprint("/", id) || 250*ms+in.Expected != c.went[id] {
				t.Errorf("place %d: %s of %s in %v; it was /%d, after %v", i, in.Path, in.Caller, in.Expected, id, c.went[id]-250*ms)
			}
		}
	})
}

// What holds up the line, in one word.
func TestLineSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("api", 10, 2))
		out, _ := l.Take(t.Context(), headgate.Ask{})
		l.Reserve(0.5, -1)
		p, _ := l.Take(t.Context(), headgate.Ask{}) // 200 ms to the next
		answered(p)
		c := newCrowd()
		c.take(t.Context(), l, 0, headgate.Ask{}, answered)
		see := func(cause string, expected time.Duration, so headgate.WaitPart) {
			t.Helper()
			so.Limit = "api"
			in := l.Line(1)
			if len(in) != 1 || in[0].Limit != "api" || in[0].Cause != cause || in[0].Expected != expected || !reflect.DeepEqual(in[0].Wait.Parts, []headgate.WaitPart{so}) {
				t.Errorf("%+v, want %s, %v, %+v", in, cause, expected, so)
			}
		}
		time.Sleep(50 * ms)
		see(headgate.WaitReserved, 150*ms, headgate.WaitPart{Reserved: 50 * ms})
		l.Pause()
		time.Sleep(50 * ms)
		see(headgate.WaitPaused, 100*ms, headgate.WaitPart{Reserved: 50 * ms, Paused: 50 * ms})
		l.Resume()
		out.Done(refusedFor(time.Second, "api"))
		time.Sleep(50 * ms)
		see(headgate.WaitRetryAfter, 950*ms, headgate.WaitPart{Reserved: 50 * ms, Paused: 50 * ms, RetryAfter: 50 * ms})
		c.wg.Wait()
		if len(l.Line(1)) != 0 {
			t.Error("somebody is in line")
		}
	})
}

// A Transport passes on whose call it is.
func TestCallsHaveACaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := exact(t, limit("api", 1, 1))
		tr := &headgate.Transport{Base: &script{answers: []any{answer(200, "")}}, Limiter: l}
		req := post(t, "{}")
		if _, err := tr.RoundTrip(req.WithContext(headgate.WithCall(t.Context(), headgate.Call{Caller: "a", Weight: 3}))); err != nil {
			t.Fatal(err)
		}
		if got, want := l.Callers(), []headgate.CallerUse{{Caller: "a", Weight: 3, Granted: 1}}; !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, want %+v", got, want)
		}
	})
}
