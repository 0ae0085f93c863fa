package main

import (
	"io"

	"github.com/headgate/headgate/internal/bulk"
)

// results is where the results go.
func (r *bulkRun) results() (resultsFile, error) {
	out := r.flags.out
	switch {
	case out == "-":
		return plainWriter{r.stdout}, nil
	case out != "":
		file, err := bulk.CreateOut(out)
		if err != nil {
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
