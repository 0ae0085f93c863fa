package bulk

import (
	"bufio"
	"errors"
	"io"
)

// lines reads lines of bounded length.
type lines struct {
	r    *bufio.Reader
	buf  []byte
	line int // the number of the last line read, from 1
}

// next returns the next line without its line feed; it is valid until the
// next call. A line longer than MaxLine is read to its end, but comes back
// as nil and long. At the end the error is io.EOF, and nothing else is set.
func (l *lines) next() (line []byte, long bool, err error) {
	l.buf = l.buf[:0]
	some := false
	for {
		part, err := l.r.ReadSlice('\n')
		some = some || len(part) > 0
		if err == nil {
			part = part[:len(part)-1]
		}
		switch {
		case long:
		case len(l.buf)+len(part) > MaxLine:
			long = true
		case err == nil && len(l.buf) == 0:
			l.line++
			return part, false, nil // the common case: no copy
		default:
			l.buf = append(l.buf, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && (err != io.EOF || !some):
			return nil, false, err
		}
		l.line++
		if long {
			return nil, true, nil
		}
		return l.buf, false, nil
	}
}
