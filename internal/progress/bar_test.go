package progress

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/mattn/go-runewidth"
)

// screen is as much of a terminal as a bar needs. It fails the test on what
// it does not know, and on a line that is wider than it is.
type screen struct {
	t *testing.T

	mu       sync.Mutex // guards the rest
	width    int
	lines    [][]rune
	row, col int
	writes   int
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	text := []rune(string(b))
	for i := 0; i < len(text); i++ {
		for len(s.lines) <= s.row {
			s.lines = append(s.lines, nil)
		}
		line := &s.lines[s.row]
		switch r := text[i]; r {
		case '\n':
			s.row, s.col = s.row+1, 0
		case '\r':
			s.col = 0
		case '\x1b':
			rest := string(text[i+1:])
			n := 0
			switch {
			case strings.HasPrefix(rest, "[K"):
				*line = (*line)[:s.col]
				i += 2
			case strings.HasPrefix(rest, "[J"):
				*line = (*line)[:s.col]
				s.lines = s.lines[:s.row+1]
				i += 2
			default:
				if _, err := fmt.Sscanf(rest, "[%dA", &n); err != nil || n < 1 || n > s.row {
					s.t.Errorf("in row %d: escape %.10q", s.row, rest)
					return 0, errors.New("unknown escape")
				}
				s.row -= n
				i += strings.IndexByte(rest, 'A') + 1
			}
		default:
			*line = append((*line)[:s.col:s.col], append([]rune{r}, (*line)[min(s.col+1, len(*line)):]...)...)
			s.col++
		}
	}
	for _, l := range s.lines {
		if runewidth.StringWidth(string(l)) >= s.width && !strings.HasPrefix(string(l), "a message") {
			s.t.Errorf("the screen is %d wide, the line is %q", s.width, string(l))
		}
	}
	return len(b), nil
}

// resize wraps what is too wide now, as most terminals do.
func (s *screen) resize(width int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.width = width
	var lines [][]rune
	for i, l := range s.lines {
		if i == s.row {
			s.row = len(lines)
		}
		for len(l) > width {
			lines, l = append(lines, l[:width:width]), l[width:]
		}
		lines = append(lines, l)
	}
	s.lines = lines
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, l := range s.lines {
		b.WriteString(strings.TrimRight(string(l), " ") + "\n")
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

func (s *screen) size() (int, int, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.width, 10, true
}

func TestBar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &screen{t: t, width: 80}
		p := Start(Config{W: s, Snapshot: script(time.Now()), Terminal: s.size, Getenv: utf8Locale})
		at := func(d time.Duration, want string) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if s.String() != want {
				t.Errorf("got\n%swant\n%s", s, want)
			}
		}
		at(1*time.Second, `10/100 ━━━━╸─────────────────────────────────────────────  10%  10.0/s  9s left
2 in flight · 88 waiting
`)
		p.Println("a message")
		at(3*time.Second, `a message
40/100 ━━━━━━━━━━━━━━━━━━━╸──────────────────────────────  40%  10.0/s  6s left
waits for client: Retry-After 3.2s · 1 failed · 3× 429 · 2 in flight
`)
		s.resize(40)
		at(time.Second, `a message
50/100 ━━━━╸─────  50%  10.0/s  5s left
waits for client: Retry-After 3.2s
`)
		s.resize(20)
		at(time.Second, `a message
60/100 ━━━━━━╸────
waits for client: …
`)
		s.resize(80)
		at(4*time.Second, `a message
100/100 ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━  100%  10.0/s  in 10s
1 failed · 3× 429
`)
		p.Stop()
		p.Println("after")
		at(time.Second, `a message
100/100 ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━  100%  10.0/s  in 10s
1 failed · 3× 429
after
`)
	})
}

func TestBarInASCII(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &screen{t: t, width: 60}
		p := Start(Config{W: s, Mode: Bar, Terminal: s.size, Getenv: func(string) string { return "" }, Snapshot: func() Snapshot {
			return Snapshot{Total: 10, Done: 5, Refused: 2, Waiting: 3}
		}})
		p.Stop()
		if want := "5/10 [=======================>-----------------------]  50%\n2x 429 | 3 waiting\n"; s.String() != want {
			t.Errorf("got\n%swant\n%s", s, want)
		}
	})
}

// No total, no rate, nothing to say.
func TestBarOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &screen{t: t, width: 60}
		p := Start(Config{W: s, Mode: Bar, Terminal: s.size, Snapshot: func() Snapshot { return Snapshot{Done: 7} }})
		time.Sleep(time.Second)
		p.Stop()
		if want := "7 ended\n"; s.String() != want {
			t.Errorf("got\n%swant\n%s", s, want)
		}
	})
}

// Whatever there is to say and however little room, no line is too wide; the
// screen sees to that.
func TestBarFits(t *testing.T) {
	s := Snapshot{Total: 12345678, Done: 2345678, Failed: 123456, Expired: 1, Unknown: 99, InFlight: 200, Waiting: 1e6, Refused: 77, Retried: 1e5,
		Rate: 12345.6, Left: 99 * time.Hour, LeftKnown: true, WaitingFor: "ein Limit mit Umlaut: ä und 漢字 \x1b[2J\n", Note: "stopping"}
	for width := range 130 {
		if width == 1 {
			continue // no column to leave free
		}
		synctest.Test(t, func(t *testing.T) {
			screen := &screen{t: t, width: width}
			if width == 0 { // unknown: 80 is assumed
				screen.width = 80
			}
			p := Start(Config{W: screen, Mode: Bar, Getenv: utf8Locale, Snapshot: func() Snapshot { return s },
				Terminal: func() (int, int, bool) { return width, 24, true }})
			time.Sleep(time.Second)
			p.Stop()
			if width >= 40 && (!strings.Contains(screen.String(), "/12,345,678") || !strings.Contains(screen.String(), "stopping")) {
				t.Errorf("%d columns:\n%s", width, screen)
			}
		})
	}
}

// A picture is one write, so that no half of it shows.
func TestBarWritesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &screen{t: t, width: 80}
		p := Start(Config{W: s, Mode: Bar, Interval: time.Second, Terminal: s.size, Snapshot: script(time.Now())})
		defer p.Stop()
		time.Sleep(3500 * time.Millisecond)
		synctest.Wait()
		if s.writes != 3 {
			t.Errorf("3 pictures took %d writes", s.writes)
		}
	})
}

// A terminal that became narrower has wrapped what stood there.
func TestConsoleAfterResize(t *testing.T) {
	var out strings.Builder
	width, height := 81, 24
	c := &console{out: &out, size: func() (int, int, bool) { return width, height, true }}
	draw := func(rows ...string) string {
		out.Reset()
		for _, r := range rows {
			if _, err := c.ReadFrom(strings.NewReader(r + "  \n")); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Flush(len(rows)); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	long := strings.Repeat("━", 80)
	if got, want := draw(long, "", "b"), long+"\x1b[K\nb\x1b[K\n\x1b[J"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	width = 40
	if got, want := draw("a"), "\r\x1b[3Aa\x1b[K\n\x1b[J"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	width = 81
	draw(long, long)
	width, height = 10, 5
	if got, want := draw("a"), "\r\x1b[4Aa\x1b[K\n\x1b[J"; got != want {
		t.Errorf("beyond the top: got %q, want %q", got, want)
	}
	if _, err := c.ReadFrom(iotest.ErrReader(io.ErrUnexpectedEOF)); err == nil {
		t.Error("an error is lost")
	}
}

// Lines that come while the bar ends are neither lost nor painted over.
func TestPrintingWhileTheBarEnds(t *testing.T) {
	for range 30 {
		s := &screen{t: t, width: 80}
		p := Start(Config{W: s, Mode: Bar, Terminal: s.size, Interval: time.Millisecond,
			Snapshot: func() Snapshot { return Snapshot{Total: 9, Refused: 1} }})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 50 {
					p.Println("a message")
				}
			})
		}
		p.Stop()
		wg.Wait()
		if n := strings.Count(s.String(), "a message"); n != 200 {
			t.Fatalf("%d of 200 messages are on the screen", n)
		}
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("broken") }

// A terminal that went away must not hold up the run.
func TestBrokenTerminal(t *testing.T) {
	for _, mode := range []Mode{Bar, Plain, JSON, None} {
		synctest.Test(t, func(t *testing.T) {
			p := Start(Config{W: brokenWriter{}, Mode: mode, Snapshot: script(time.Now())})
			for range 100 {
				p.Println("message")
				time.Sleep(100 * time.Millisecond)
			}
			if n, err := p.Write([]byte("x\n")); n != 2 || err != nil {
				t.Errorf("Write returns %d, %v", n, err)
			}
			p.Stop()
			p.Println("after")
		})
	}
}

func BenchmarkBar(b *testing.B) {
	c := newBar(Config{W: io.Discard, Getenv: utf8Locale, Terminal: func() (int, int, bool) { return 100, 30, true }})
	s := script(time.Now())()
	b.ReportAllocs()
	for b.Loop() {
		c.paint(s)
	}
	c.end(s)
}
