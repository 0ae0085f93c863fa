package main

import (
	"context"
	"io"
	"io/fs"
	"os"
)

// open opens the input. Nothing that it does outlasts ctx, not even reading a
// pipe into which nobody writes.
func (p *process) open(ctx context.Context, name string) (io.ReadCloser, error) {
	if name == "-" {
		return &input{Reader: interruptible(ctx, p.stdin)}, nil
	}
	file, err := unlessBlocked(ctx, name, func() (*os.File, error) { return os.Open(name) })
	if err != nil {
		return nil, err
	}
	return &input{interruptible(ctx, file), file}, nil
}

type input struct {
	io.Reader
	file *os.File // nil for standard input
}

func (in *input) Close() error {
	if in.file == nil {
		return nil
	}
	return in.file.Close()
}

// unlessBlocked opens the file at path. Opening a named pipe may take for ever:
// that is given up when ctx ends.
func unlessBlocked[T any](ctx context.Context, path string, open func() (T, error)) (T, error) {
	info, err := os.Stat(path)
	if err != nil || info.Mode()&fs.ModeNamedPipe == 0 {
		return open()
	}
	type result struct {
		file T
		err  error
	}
	opened := make(chan result, 1)
	go func() {
		file, err := open()
		opened <- result{file, err}
	}()
	select {
	case r := <-opened:
		return r.file, r.err
	case <-ctx.Done():
		return *new(T), ctx.Err()
	}
}

// interruptible returns a reader of r that fails when ctx ends, even if r
// blocks: then the goroutine that reads from it stays behind until r returns.
func interruptible(ctx context.Context, r io.Reader) io.Reader {
	in := &interruptibleReader{ctx: ctx, full: make(chan part), empty: make(chan []byte, 2)}
	for range cap(in.empty) {
		in.empty <- make([]byte, 64<<10)
	}
	go in.pump(r)
	return in
}

type interruptibleReader struct {
	ctx   context.Context
	full  chan part
	empty chan []byte
	now   part   // what is being handed out
	rest  []byte // of it
}

// part is what one Read returned.
type part struct {
	buf []byte
	n   int
	err error
}

func (in *interruptibleReader) pump(r io.Reader) {
	for {
		var p part
		select {
		case p.buf = <-in.empty:
		case <-in.ctx.Done():
			return
		}
		p.n, p.err = r.Read(p.buf)
		select {
		case in.full <- p:
		case <-in.ctx.Done():
			return
		}
		if p.err != nil {
			return
		}
	}
}

// Read implements io.Reader.
func (in *interruptibleReader) Read(b []byte) (int, error) {
	if err := in.ctx.Err(); err != nil {
		return 0, err
	}
	for len(in.rest) == 0 {
		if in.now.err != nil {
			return 0, in.now.err
		}
		if in.now.buf != nil {
			in.empty <- in.now.buf // there is room: it came from there
		}
		select {
		case in.now = <-in.full:
			in.rest = in.now.buf[:in.now.n]
		case <-in.ctx.Done():
			in.now.buf = nil
			return 0, in.ctx.Err()
		}
	}
	n := copy(b, in.rest)
	in.rest = in.rest[n:]
	return n, nil
}
