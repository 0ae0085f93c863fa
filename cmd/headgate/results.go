package main

import (
	"context"
	"io"

	"github.com/headgate/headgate/internal/bulk"
)

// results is where the results go.
func (r *bulkRun) results(ctx context.Context) (resultsFile, error) {
	out := r.flags.out
	switch {
	case out == "-":
		return plainWriter{r.stdout}, nil
	case out != "":
		file, err := unlessBlocked(ctx, out, func() (*bulk.OutFile, error) { return bulk.CreateOut(out) })
		switch {
		case ctx.Err() != nil && err != nil:
			return nil, errInterrupted
		case err != nil:
			return nil, usage("--out: %w", err)
		}
		return file, nil
	}
	if isTerminal(r.stdout) {
		return plainWriter{io.Discard}, nil
	}
	return plainWriter{r.stdout}, nil
}

// resultsFile is a bulk.OutFile or what stands for one.
type resultsFile interface {
	io.Writer
	Commit() error
	Abort()
}

type plainWriter struct{ io.Writer }

func (plainWriter) Commit() error { return nil }
func (plainWriter) Abort()        {}
