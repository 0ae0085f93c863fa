// Package progress shows how far a run is, for eyes or for machines, while
// workers count elsewhere.
//
// One goroutine asks for a [Snapshot] at an interval and paints it: as a bar
// on a terminal, as plain lines where there is none, or as lines of JSON.
// Whatever else is to be said meanwhile goes through the [Painter], so that
// nothing breaks the bar.
package progress

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/cupwriter"
)

// Snapshot is the state of a run at one moment. The counts are of
// executions, unless another thing is named.
type Snapshot struct {
	// Total is how many there are, 0 if that is not known yet.
	Total int64
	// Done, Failed, Expired and Unknown have ended, each so.
	Done, Failed, Expired, Unknown int64
	// InFlight are on the wire; Waiting are held by a limit.
	InFlight, Waiting int64
	// Refused counts answers that a limit refused (429), Retried attempts
	// that were made again for another reason.
	Refused, Retried int64
	// Rate is how many ended per second lately.
	Rate float64
	// WaitingFor says what holds the next one back, in a few words; empty
	// for nothing.
	WaitingFor string
	// Left is the time until the end, as the limits allow it; it counts
	// only if LeftKnown is set.
	Left      time.Duration
	LeftKnown bool
	// Elapsed is the time since the start.
	Elapsed time.Duration
	// Note is what must be seen first, such as what Ctrl-C just did.
	Note string
}

// Ended returns how many have an outcome.
func (s Snapshot) Ended() int64 { return s.Done + s.Failed + s.Expired + s.Unknown }

// Mode says how a run is shown.
type Mode int

const (
	// Auto is Bar on a terminal that can show one, and Plain elsewhere.
	Auto Mode = iota
	// Bar repaints a bar in place.
	Bar
	// Plain writes a line now and then.
	Plain
	// JSON writes an object per line; see [Event].
	JSON
	// None shows no progress; messages are written still.
	None
)

var modeNames = [...]string{"auto", "bar", "plain", "json", "none"}

// String returns the mode's name as ParseMode takes it.
func (m Mode) String() string {
	if m < 0 || int(m) >= len(modeNames) {
		return fmt.Sprintf("Mode(%d)", int(m))
	}
	return modeNames[m]
}

// ParseMode returns the mode of a name: auto, bar, plain, json or none.
func ParseMode(name string) (Mode, error) {
	for m, n := range modeNames {
		if n == name {
			return Mode(m), nil
		}
	}
	return 0, fmt.Errorf("progress %q is not one of %s", name, strings.Join(modeNames[:], ", "))
}

// Config says what to show, and how. Only W and Snapshot are needed.
type Config struct {
	// W is where to show it, as a rule os.Stderr. While a Painter runs
	// nothing else may write there.
	W io.Writer
	// Mode is how; zero is Auto.
	Mode Mode
	// Interval is the time between two pictures: 100 ms by default for a
	// bar, 2 s for plain lines, 1 s for JSON; zero and less mean these.
	Interval time.Duration
	// Snapshot returns the state of the run. It is called from one
	// goroutine at a time and should take no time.
	Snapshot func() Snapshot
	// Terminal returns the size of the terminal behind W, ok false if there
	// is none. It is asked again for every picture. Nil finds out.
	Terminal func() (width, height int, ok bool)
	// Getenv reads the environment: TERM, LC_ALL, LC_CTYPE and LANG. Nil
	// means os.Getenv.
	Getenv func(string) string
}

// Painter shows the progress of a run from Start until Stop. Its methods may
// be called concurrently, and after Stop too: then what is printed goes to W
// as it is.
type Painter struct {
	snapshot func() Snapshot
	canvas   canvas
	stop     chan struct{}
	stopped  chan struct{}
	once     sync.Once

	mu   sync.Mutex
	rest []byte // guarded by mu: written, but not yet a whole line
}

// canvas is one way to show a run. Its methods may be called concurrently.
type canvas interface {
	paint(s Snapshot)
	print(line string) // without the line feed
	end(s Snapshot)    // paints the last picture; print is still allowed
}

// Start begins to paint. The caller must call Stop.
func Start(c Config) *Painter {
	if c.Getenv == nil {
		c.Getenv = os.Getenv
	}
	if c.Terminal == nil {
		c.Terminal = terminalOf(c.W)
	}
	if c.Mode == Auto {
		c.Mode = Plain
		if _, _, ok := c.Terminal(); ok && c.Getenv("TERM") != "dumb" {
			c.Mode = Bar
		}
	}
	c.Interval = max(c.Interval, 0)
	p := &Painter{snapshot: c.Snapshot, stop: make(chan struct{}), stopped: make(chan struct{})}
	switch c.Mode {
	case Bar:
		c.Interval = cmp.Or(c.Interval, 100*time.Millisecond)
		p.canvas = newBar(c)
	case JSON:
		c.Interval = cmp.Or(c.Interval, time.Second)
		p.canvas = &jsonLines{out: lineWriter{w: c.W}}
	case None:
		c.Interval = time.Hour
		p.canvas = &silence{out: lineWriter{w: c.W}}
	default:
		c.Interval = cmp.Or(c.Interval, 2*time.Second)
		p.canvas = &plain{out: lineWriter{w: c.W}, ascii: ascii(c.Getenv)}
	}
	go p.run(c.Interval)
	return p
}

func (p *Painter) run(interval time.Duration) {
	defer close(p.stopped)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			p.canvas.paint(p.snapshot())
		case <-p.stop:
			p.flush()
			p.canvas.end(p.snapshot())
			return
		}
	}
}

// Stop paints the last state and leaves the terminal as a shell expects it,
// with the cursor in a new line. When it returns, nothing runs any more and
// Snapshot is not called again. Further calls do nothing.
func (p *Painter) Stop() {
	p.once.Do(func() { close(p.stop) })
	<-p.stopped
}

// Println shows a line of text, or several, above the bar.
func (p *Painter) Println(text string) {
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		p.canvas.print(line)
	}
}

// Write shows the lines of b above the bar, for loggers. A last line that is
// not whole waits for its end. It never fails: there is nobody to tell.
func (p *Painter) Write(b []byte) (int, error) {
	p.mu.Lock()
	p.rest = append(p.rest, b...)
	var text string
	if end := bytes.LastIndexByte(p.rest, '\n'); end >= 0 {
		text = string(p.rest[:end+1])
		p.rest = append(p.rest[:0], p.rest[end+1:]...)
	}
	p.mu.Unlock()
	if text != "" {
		p.Println(text)
	}
	return len(b), nil
}

// flush shows the rest of what was written.
func (p *Painter) flush() {
	p.mu.Lock()
	text := string(p.rest)
	p.rest = nil
	p.mu.Unlock()
	if text != "" {
		p.Println(text)
	}
}

// terminalOf returns a function that tells the size of the terminal that w is.
func terminalOf(w io.Writer) func() (width, height int, ok bool) {
	none := func() (int, int, bool) { return 0, 0, false }
	if _, ok := w.(*os.File); !ok {
		return none
	}
	console := cupwriter.New(w, false)
	if !console.IsTerminal() {
		return none
	}
	return func() (int, int, bool) {
		width, height, err := console.GetTermSize()
		return width, height, err == nil
	}
}
