package progress

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// script is a run of 100 at 10 per second that meets a limit after 2 s.
func script(start time.Time) func() Snapshot {
	return func() Snapshot {
		elapsed := time.Since(start)
		n := min(int64(elapsed/(100*time.Millisecond)), 100)
		s := Snapshot{Total: 100, Done: n, Elapsed: elapsed, Rate: 10, Left: time.Duration(100-n) * 100 * time.Millisecond, LeftKnown: true}
		if n < 100 {
			s.InFlight, s.Waiting = 2, 98-n
		}
		if n >= 20 {
			s.Done, s.Failed, s.Refused = n-1, 1, 3
		}
		if n >= 20 && n < 100 {
			s.WaitingFor = "client: Retry-After 3.2s"
		}
		return s
	}
}

func utf8Locale(name string) string { return map[string]string{"LANG": "C.UTF-8"}[name] }

func noTerminal() (int, int, bool) { return 0, 0, false }

func TestPlain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := Start(Config{W: &out, Snapshot: script(time.Now()), Terminal: noTerminal, Getenv: utf8Locale})
		time.Sleep(3 * time.Second)
		p.Println("a message\nof two lines\x1b[A\n")
		time.Sleep(7500 * time.Millisecond)
		p.Stop()
		p.Stop()
		p.Println("after")
		want := `[2s] 20/100, 20%, 10.0/s, 8s left, waits for client: Retry-After 3.2s, 1 failed, 3× 429, 2 in flight, 78 waiting
a message
of two lines?[A
[4s] 40/100, 40%, 10.0/s, 6s left, waits for client: Retry-After 3.2s, 1 failed, 3× 429, 2 in flight, 58 waiting
[6s] 60/100, 60%, 10.0/s, 4s left, waits for client: Retry-After 3.2s, 1 failed, 3× 429, 2 in flight, 38 waiting
[8s] 80/100, 80%, 10.0/s, 2s left, waits for client: Retry-After 3.2s, 1 failed, 3× 429, 2 in flight, 18 waiting
[10s] 100/100, 100%, 10.0/s, 1 failed, 3× 429
[11s] 100/100, 100%, 10.0/s, 1 failed, 3× 429
after
`
		if out.String() != want {
			t.Errorf("got\n%swant\n%s", out.String(), want)
		}
	})
}

func TestPlainIsQuietWhenNothingHappens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		start := time.Now()
		p := Start(Config{W: &out, Mode: Plain, Snapshot: func() Snapshot {
			left := time.Minute - time.Since(start)
			return Snapshot{Total: 5, Waiting: 5, WaitingFor: "client: Retry-After " + left.String(), Elapsed: time.Since(start)}
		}})
		time.Sleep(59 * time.Second)
		p.Stop()
		want := `[2s] 0/5, 0%, waits for client: Retry-After 58s, 5 waiting
[32s] 0/5, 0%, waits for client: Retry-After 28s, 5 waiting
[59s] 0/5, 0%, waits for client: Retry-After 1s, 5 waiting
`
		if out.String() != want {
			t.Errorf("got\n%swant\n%s", out.String(), want)
		}
	})
}

func TestPlainInASCII(t *testing.T) {
	var out bytes.Buffer
	p := Start(Config{W: &out, Mode: Plain, Getenv: func(string) string { return "" },
		Snapshot: func() Snapshot { return Snapshot{Total: 5, Refused: 2} }})
	p.Stop()
	if want := "[0s] 0/5, 0%, 2x 429\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestJSON(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		s := Snapshot{
			Total: 50, Done: 1, Failed: 2, Expired: 3, Unknown: 4, InFlight: 5, Waiting: 6, Refused: 7, Retried: 8,
			Rate: 9.12345, WaitingFor: "<client>", Left: 1500 * time.Millisecond, LeftKnown: true, Elapsed: time.Second, Note: "n",
		}
		p := Start(Config{W: &out, Mode: JSON, Snapshot: func() Snapshot { return s }})
		time.Sleep(1500 * time.Millisecond)
		p.Println("one \"line\"")
		s = Snapshot{Rate: nan(), Left: time.Second}
		p.Stop()
		want := `{"event":"progress","elapsedMs":1000,"total":50,"ended":10,"done":1,"failed":2,"expired":3,"unknown":4,"inFlight":5,"waiting":6,"refused":7,"retried":8,"perSecond":9.123,"leftMs":1500,"waitingFor":"\u003cclient\u003e","note":"n"}
{"event":"message","text":"one \"line\""}
{"event":"end","elapsedMs":0,"total":0,"ended":0,"done":0,"failed":0,"expired":0,"unknown":0,"inFlight":0,"waiting":0,"refused":0,"retried":0,"perSecond":0,"leftMs":null}
`
		if out.String() != want {
			t.Errorf("got\n%swant\n%s", out.String(), want)
		}
		for line := range strings.Lines(out.String()) {
			var e Event
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
	})
}

func nan() float64 {
	zero := 0.0
	return zero / zero
}

func TestNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := Start(Config{W: &out, Mode: None, Snapshot: script(time.Now())})
		p.Println("said")
		time.Sleep(10 * time.Hour)
		p.Stop()
		if out.String() != "said\n" {
			t.Errorf("got %q", out.String())
		}
	})
}

func TestInterval(t *testing.T) {
	for _, tt := range []struct {
		mode     Mode
		interval time.Duration
		want     int // pictures in a minute, with the last one
	}{
		{Plain, 0, 30 + 1}, {JSON, 0, 60 + 1}, {Bar, 0, 600 + 1},
		{Plain, 10 * time.Second, 6 + 1}, {JSON, -1, 60 + 1}, {Bar, time.Second, 60 + 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			asked := 0
			p := Start(Config{W: io.Discard, Mode: tt.mode, Interval: tt.interval, Snapshot: func() Snapshot {
				asked++
				return Snapshot{}
			}})
			time.Sleep(time.Minute + time.Millisecond)
			p.Stop()
			if asked != tt.want {
				t.Errorf("%v, %v: %d pictures, want %d", tt.mode, tt.interval, asked, tt.want)
			}
		})
	}
}

// Whatever is written comes out in whole lines, and none is lost.
func TestWriting(t *testing.T) {
	for _, mode := range []Mode{Bar, Plain, JSON, None} {
		t.Run(mode.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				p := Start(Config{W: &out, Mode: mode, Snapshot: func() Snapshot { return Snapshot{} }})
				log := slog.New(slog.NewTextHandler(p, nil))
				var wg sync.WaitGroup
				for range 20 {
					wg.Go(func() {
						for range 10 {
							log.Info("logged")
							p.Println("printed")
							time.Sleep(37 * time.Millisecond)
						}
					})
				}
				time.Sleep(200 * time.Millisecond)
				io.WriteString(p, "never ")
				io.WriteString(p, "finished")
				p.Stop()
				wg.Wait()
				text := out.String()
				if a, b := strings.Count(text, "msg=logged"), strings.Count(text, "printed"); a != 200 || b != 200 {
					t.Errorf("%d of 200 lines logged, %d of 200 printed", a, b)
				}
				if strings.Count(text, "finished") != 1 {
					t.Error("what was not a whole line at the end is lost")
				}
				for line := range strings.Lines(text) {
					if strings.Count(line, "logged")+strings.Count(line, "printed")+strings.Count(line, "finished") > 1 {
						t.Errorf("two in one line: %q", line)
					}
				}
			})
		})
	}
}

func TestAuto(t *testing.T) {
	wide := func() (int, int, bool) { return 80, 24, true }
	for _, tt := range []struct {
		terminal func() (int, int, bool)
		term     string
		bar      bool
	}{
		{wide, "xterm", true},
		{wide, "", true},
		{wide, "dumb", false},
		{noTerminal, "xterm", false},
		{nil, "xterm", false}, // a buffer is no terminal
	} {
		var out bytes.Buffer
		p := Start(Config{W: &out, Terminal: tt.terminal, Snapshot: func() Snapshot { return Snapshot{Total: 1} },
			Getenv: func(name string) string { return map[string]string{"TERM": tt.term}[name] }})
		p.Stop()
		if got := strings.Contains(out.String(), "\x1b"); got != tt.bar {
			t.Errorf("TERM=%q: bar is %v in %q", tt.term, got, out.String())
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if _, _, ok := terminalOf(w)(); ok {
		t.Error("a pipe is taken for a terminal")
	}
}

func TestParseMode(t *testing.T) {
	for m := Auto; m <= None; m++ {
		if got, err := ParseMode(m.String()); got != m || err != nil {
			t.Errorf("ParseMode(%q) = %v, %v", m, got, err)
		}
	}
	if _, err := ParseMode("fancy"); err == nil || err.Error() != `progress "fancy" is not one of auto, bar, plain, json, none` {
		t.Errorf("got %v", err)
	}
}

func TestText(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 1: "1s", 59 * time.Second: "59s", 59*time.Second + 1: "1m00s", 125 * time.Second: "2m05s",
		time.Hour - 1: "1h00m", 26*time.Hour + 61*time.Second: "1d02h",
	} {
		if got := brief(d); got != want {
			t.Errorf("brief(%v) = %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -1234567: "-1,234,567", 123456: "123,456"} {
		if got := group(n); got != want {
			t.Errorf("group(%d) = %q, want %q", n, got, want)
		}
	}
	for rate, want := range map[float64]string{0: "", -1: "", 0.05: "3.0/min", 0.5: "0.5/s", 99.94: "99.9/s", 99.96: "100/s", 12345.6: "12,346/s"} {
		if got := speed(Snapshot{Rate: rate}); got != want {
			t.Errorf("speed of %v is %q, want %q", rate, got, want)
		}
	}
	if got := speed(Snapshot{Rate: nan()}); got != "" {
		t.Errorf("speed of NaN is %q", got)
	}
	if got := percent(Snapshot{Total: 1000, Done: 999}); got != "99%" {
		t.Errorf("999 of 1000 are %s", got)
	}
	if got := counted(Snapshot{Done: 1200}); got != "1,200 ended" {
		t.Errorf("got %q", got)
	}
	if got := clean("a\tb\x1b\u202ec\xffé"); got != "a b??c?é" {
		t.Errorf("got %q", got)
	}
}
