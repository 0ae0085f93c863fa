package progress

import (
	"bytes"
	"fmt"
	"io"

	"github.com/mattn/go-runewidth"
)

// console is the terminal as mpb draws on it: an mpb.ConsoleWriter. mpb's own
// goes up by the number of rows it wrote; this one remembers how wide they
// were, because a terminal that became narrower has wrapped them.
//
// Only mpb's one rendering goroutine uses it.
type console struct {
	out    io.Writer
	size   func() (width, height int, ok bool)
	above  bytes.Buffer // lines to come to stand above the picture
	rows   []string     // the picture
	widths []int        // of the rows that are on the screen
}

// Write takes whole lines that are to stay above the picture.
func (c *console) Write(b []byte) (int, error) { return c.above.Write(b) }

// ReadFrom takes one row of the picture. An empty one takes no place.
func (c *console) ReadFrom(r io.Reader) (int64, error) {
	b, err := io.ReadAll(r)
	if row := bytes.TrimRight(b, " \n"); len(row) > 0 {
		c.rows = append(c.rows, string(row))
	}
	return int64(len(b)), err
}

// IsTerminal returns true: whoever wants a bar gets one.
func (c *console) IsTerminal() bool { return true }

// GetTermSize returns what a picture may take. The last column stays free:
// some terminals wrap a line as soon as it is full.
func (c *console) GetTermSize() (width, height int, err error) {
	width, height, ok := c.size()
	if !ok || width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	return max(width-1, 1), max(height-1, 1), nil
}

// Flush replaces the picture on the screen, in one write: so it never shows
// half of it.
func (c *console) Flush(int) error {
	width, height, _ := c.GetTermSize()
	width++
	var b bytes.Buffer
	up := 0
	for _, w := range c.widths {
		up += max(1, (w+width-1)/width)
	}
	if up = min(up, height); up > 0 {
		fmt.Fprintf(&b, "\r\x1b[%dA", up)
	}
	const clearRest = "\x1b[K" // of the line; clearing it first would flicker
	for line := range bytes.Lines(c.above.Bytes()) {
		b.Write(bytes.TrimSuffix(line, []byte("\n")))
		b.WriteString(clearRest + "\n")
	}
	c.above.Reset()
	c.widths = c.widths[:0]
	for _, row := range c.rows {
		b.WriteString(row + clearRest + "\n")
		c.widths = append(c.widths, runewidth.StringWidth(row))
	}
	c.rows = c.rows[:0]
	b.WriteString("\x1b[J") // and what a taller picture left below
	_, err := c.out.Write(b.Bytes())
	return err
}
