package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/headgate/headgate/internal/queue"
)

const (
	// readers is how many reads go on at once.
	readers = 4
	// Each reads in pieces of so many rows and bytes, each its own query: a
	// read transaction that stays open keeps the log from starting anew.
	chunkRows  = 256
	chunkBytes = 1 << 20
)

type readStatements struct{ nextDue, meta *sql.Stmt }

func (s *Store) openReaders() (err error) {
	if s.read, err = sql.Open("sqlite", dsn(s.path, lookerWait, "query_only(1)", "cache_size(-2048)")); err != nil {
		return err
	}
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(readers)
	s.stmts.nextDue, err = s.read.Prepare(`SELECT
		EXISTS (SELECT 1 FROM execution INDEXED BY ready WHERE state = 0 AND parked = 0),
		(SELECT due FROM execution INDEXED BY parked WHERE state = 0 AND parked = 1 ORDER BY due LIMIT 1)`)
	if err != nil {
		return err
	}
	s.stmts.meta, err = s.read.Prepare("SELECT value FROM meta WHERE key = ?")
	return err
}

// readError gives err, met while reading, the meaning that callers look for.
func (s *Store) readError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if s.closed.Load() {
		return queue.ErrClosed
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("reading journal %s: %w", s.path, s.failed(err))
}

// NextDue implements [queue.Store].
func (s *Store) NextDue(ctx context.Context) (due time.Time, ok bool, err error) {
	if s.closed.Load() {
		return time.Time{}, false, queue.ErrClosed
	}
	var ready bool
	var first sql.NullInt64
	if err := s.stmts.nextDue.QueryRowContext(ctx).Scan(&ready, &first); err != nil {
		return time.Time{}, false, s.readError(ctx, err)
	}
	switch {
	case ready:
		return time.Time{}, true, nil
	case first.Valid:
		return fromNanos(first.Int64), true, nil
	}
	return time.Time{}, false, nil
}

// Counts implements [queue.Store].
func (s *Store) Counts(ctx context.Context) (queue.Counts, error) {
	if s.closed.Load() {
		return queue.Counts{}, queue.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return queue.Counts{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts, nil
}

// Meta implements [queue.Store].
func (s *Store) Meta(ctx context.Context, key string) (v []byte, err error) {
	if s.closed.Load() {
		return nil, queue.ErrClosed
	}
	err = s.stmts.meta.QueryRowContext(ctx, key).Scan(&v)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if v == nil {
		v = []byte{} // stored, and empty
	}
	return v, s.readError(ctx, err)
}

// Each implements [queue.Store]. A consumer that takes its time costs nothing:
// nothing is open while it does.
func (s *Store) Each(ctx context.Context, f queue.Filter) iter.Seq2[queue.Execution, error] {
	return func(yield func(queue.Execution, error) bool) {
		query := eachQuery(f)
		after, left := f.After, f.Limit
		for {
			limit := chunkRows
			if f.Limit > 0 {
				limit = min(limit, left)
			}
			if limit == 0 {
				return
			}
			xs, more, err := s.chunk(ctx, query, after, limit)
			for _, x := range xs {
				if !yield(x, nil) {
					return
				}
			}
			if err != nil {
				yield(queue.Execution{}, s.readError(ctx, err))
				return
			}
			if !more {
				return
			}
			after = xs[len(xs)-1].ID
			left -= len(xs)
		}
	}
}

// eachQuery chooses the index by what is asked for: what is in flight is found
// without a look at what is not.
func eachQuery(f queue.Filter) string {
	from := "execution e NOT INDEXED"
	where := "e.id > ?"
	if len(f.States) > 0 {
		var in []string
		flight := true
		for _, s := range f.States {
			in = append(in, fmt.Sprint(int(s)))
			flight = flight && (s == queue.Claimed || s == queue.Sent)
		}
		slices.Sort(in)
		where += " AND e.state IN (" + strings.Join(slices.Compact(in), ", ") + ")"
		if flight {
			from = "execution e INDEXED BY flight"
			where += " AND e.state IN (1, 2)" // word for word the index's own
		}
	}
	if f.Unanswered {
		where += " AND json_extract(e.tally, '$.unanswered') > 0" // most have no tally
	}
	return "SELECT " + whole + " FROM " + from + " CROSS JOIN request r ON r.id = e.id WHERE " + where +
		" ORDER BY e.id LIMIT ?"
}

// chunk reads the next executions. more is false when there are no others.
func (s *Store) chunk(ctx context.Context, query string, after int64, limit int) (xs []queue.Execution, more bool, err error) {
	if s.closed.Load() {
		return nil, false, queue.ErrClosed
	}
	rows, err := s.read.QueryContext(ctx, query, after, limit)
	if err != nil {
		return nil, false, err
	}
	defer rows.Close()
	for size := 0; rows.Next(); {
		x, err := scan(rows)
		if err != nil {
			return xs, false, err
		}
		xs = append(xs, x)
		if size += len(x.Body) + len(x.Answer); size >= chunkBytes {
			return xs, true, nil
		}
	}
	return xs, len(xs) == limit, rows.Err()
}
