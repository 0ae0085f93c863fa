package progress

import (
	"bytes"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mattn/go-runewidth"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// leastBar is the narrowest bar that is worth its place.
const leastBar = 10

// bar repaints two rows: the bar, and what there is to know beside it.
//
//	412/1,000 ━━━━━━━━━━━━━━━━╸──────────────────────  41%  50.1/s  12s left
//	waits for token.rate.per.minute: Retry-After 3.2s · 3× 429 · 188 waiting
type bar struct {
	out     lineWriter
	state   atomic.Pointer[Snapshot] // what to draw
	refresh chan any                 // asks mpb for a picture
	gone    chan any                 // closed when mpb draws no more
	console *console                 // mpb's, until it is gone
	mpb     *mpb.Progress
	row     *mpb.Bar
}

func newBar(c Config) *bar {
	b := &bar{
		out:     lineWriter{w: c.W},
		refresh: make(chan any),
		gone:    make(chan any),
		console: &console{out: c.W, size: c.Terminal},
	}
	b.state.Store(new(Snapshot))
	b.mpb = mpb.New(
		mpb.WithConsoleWriter(b.console),
		mpb.WithManualRefresh(b.refresh),
		mpb.WithShutdownNotifier(b.gone),
	)
	plainSigns := ascii(c.Getenv)
	style := mpb.BarStyle().Lbound("").Filler("━").Tip("╸").Padding("─").Rbound("")
	if plainSigns {
		style = mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding("-").Rbound("]")
	}
	// A total of 0 keeps mpb from ending the bar by itself; what it draws
	// comes from the state.
	b.row = b.mpb.New(0, style,
		mpb.BarFillerMiddleware(b.filler),
		mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return counted(*b.state.Load()) })),
		mpb.AppendDecorators(decor.Any(b.right)),
		mpb.BarBtmExtender(mpb.BarFillerFunc(func(w io.Writer, stat decor.Statistics) error {
			text := fit(details(*b.state.Load()), " · ", stat.AvailableWidth)
			if plainSigns {
				text = fit(strings.Split(toASCII(text), " | "), " | ", stat.AvailableWidth)
			}
			_, err := io.WriteString(w, text+"\n")
			return err
		})),
	)
	return b
}

// filler draws the bar itself, or none where there is no total or no room.
func (b *bar) filler(base mpb.BarFiller) mpb.BarFiller {
	return mpb.BarFillerFunc(func(w io.Writer, stat decor.Statistics) error {
		s := b.state.Load()
		if s.Total <= 0 || stat.AvailableWidth < leastBar {
			return nil
		}
		stat.Total, stat.Current = s.Total, min(s.Ended(), s.Total)
		stat.Completed = stat.Current == stat.Total
		return base.Fill(w, stat)
	})
}

// right returns as much of what stands right of the bar as there is room for.
func (b *bar) right(stat decor.Statistics) string {
	s := *b.state.Load()
	end := left(s)
	if s.Total > 0 && s.Ended() >= s.Total && s.Elapsed > 0 {
		end = "in " + brief(s.Elapsed)
	}
	for _, parts := range [][]string{
		{percent(s), speed(s), end},
		{speed(s), end},
		{end},
		{percent(s)},
	} {
		text := ""
		for _, p := range parts {
			if p != "" {
				text += " " + p + " "
			}
		}
		text = strings.TrimSuffix(text, " ")
		if len(text)+leastBar+2 <= stat.AvailableWidth { // it is ASCII
			return text
		}
	}
	return ""
}

// fit joins as many parts as there is room for, in their order; the first
// one is there in any case, shortened if need be.
func fit(parts []string, separator string, width int) string {
	text := ""
	for i, p := range parts {
		switch {
		case i == 0:
			text = runewidth.Truncate(p, width, "…")
		case runewidth.StringWidth(text+separator+p) <= width:
			text += separator + p
		}
	}
	return text
}

func (b *bar) paint(s Snapshot) {
	b.state.Store(&s)
	select {
	case b.refresh <- time.Now():
	case <-b.gone:
	}
}

func (b *bar) print(line string) {
	line = clean(line)
	if _, err := b.mpb.Write([]byte(line + "\n")); err != nil { // it is ending
		<-b.gone // after its last picture, which would paint over the line
		b.out.line([]byte(line))
	}
}

func (b *bar) end(s Snapshot) {
	b.paint(s)
	b.row.Abort(false) // keep it on the screen
	b.mpb.Wait()
	// What came too late for the last picture stands below it.
	for line := range bytes.Lines(b.console.above.Bytes()) {
		b.out.line(bytes.TrimSuffix(line, []byte("\n")))
	}
}
