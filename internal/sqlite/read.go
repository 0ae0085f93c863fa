package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
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

type readStatements struct{ nextDue, oldest, get, meta *sql.Stmt }

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
	// What is claimed or sent stands in front of it: no more than is in hand.
	s.stmts.oldest, err = s.read.Prepare(`SELECT accepted FROM request WHERE id = (
		SELECT id FROM execution INDEXED BY stage WHERE outcome = 0 AND state = 0 ORDER BY id LIMIT 1)`)
	if err != nil {
		return err
	}
	s.stmts.get, err = s.read.Prepare("SELECT " + whole + " FROM execution e CROSS JOIN request r ON r.id = e.id WHERE e.id = ?")
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

// Load implements [queue.Store].
func (s *Store) Load(ctx context.Context) (map[string]queue.Load, error) {
	if s.closed.Load() {
		return nil, queue.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.load), nil
}

// LoadOf returns what all callers have open, and what one of them has. Unlike Load
// it costs the same for any number of callers.
func (s *Store) LoadOf(caller string) (all, own queue.Load) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.allLoad, s.load[caller]
}

// Ahead returns how many executions are open that are at least as urgent as
// priority: an execution of that priority that is added now goes after no others.
func (s *Store) Ahead(priority int) (n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, open := range s.urgency {
		if p <= priority {
			n += open
		}
	}
	return n
}

// Oldest implements [queue.Store].
func (s *Store) Oldest(ctx context.Context) (accepted time.Time, ok bool, err error) {
	if s.closed.Load() {
		return time.Time{}, false, queue.ErrClosed
	}
	var n int64
	err = s.stmts.oldest.QueryRowContext(ctx).Scan(&n)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, false, nil
	}
	if err != nil {
		return time.Time{}, false, s.readError(ctx, err)
	}
	return fromNanos(n), true, nil
}

// Get implements [queue.Store].
func (s *Store) Get(ctx context.Context, id int64) (queue.Execution, error) {
	if s.closed.Load() {
		return queue.Execution{}, queue.ErrClosed
	}
	rows, err := s.stmts.get.QueryContext(ctx, id)
	if err != nil {
		return queue.Execution{}, s.readError(ctx, err)
	}
	defer rows.Close()
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return queue.Execution{}, s.readError(ctx, err)
		}
		return queue.Execution{}, fmt.Errorf("execution %d: %w", id, queue.ErrNotFound)
	}
	x, err := scan(rows)
	if err == nil {
		err = s.log.settled()
	}
	return x, s.readError(ctx, err)
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
		query, args := eachQuery(f)
		after, left := f.After, f.Limit
		if f.Newest && after == 0 {
			after = math.MaxInt64
		}
		for {
			limit := chunkRows
			if f.Limit > 0 {
				limit = min(limit, left)
			}
			if limit == 0 {
				return
			}
			xs, more, err := s.chunk(ctx, query, append(args, after, limit))
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

// branch is one index, and the part of it in which a filter's executions are.
type branch struct{ index, where string }

// branches are where the executions of f can be, each in order of ID within a
// branch: so the first of them in each are found without a look at the others.
// What is open and not in flight is nearly all queued, so states that are open
// need no branch of their own.
func branches(f queue.Filter) (bs []branch) {
	var wanted [queue.Unknown + 1]bool
	for _, s := range f.States {
		if s >= 0 && int(s) < len(wanted) {
			wanted[s] = true
		}
	}
	all := len(f.States) == 0
	if !all && !slices.Contains(wanted[:], true) {
		return nil // states that there are not
	}
	if f.Unanswered {
		in := "TRUE"
		if !all {
			in = states(wanted[:])
		}
		return []branch{{"INDEXED BY maybe", "unanswered > 0 AND " + in}}
	}
	if all && f.Caller == "" {
		return []branch{{"NOT INDEXED", "TRUE"}}
	}
	index, mine := "INDEXED BY stage", ""
	if f.Caller != "" {
		index, mine = "INDEXED BY mine", " AND caller = ?1"
	}
	open := wanted[:queue.Done]
	switch {
	case all || !slices.Contains(open, false):
		bs = append(bs, branch{index, "outcome = 0" + mine})
	case wanted[queue.Queued]:
		bs = append(bs, branch{index, "outcome = 0 AND " + states(open) + mine})
	case slices.Contains(open, true):
		bs = append(bs, branch{"INDEXED BY flight", "state IN (1, 2) AND " + states(open) + mine})
	}
	for s := queue.Done; s <= queue.Unknown; s++ {
		if all || wanted[s] {
			bs = append(bs, branch{index, fmt.Sprintf("outcome = %d", s) + mine})
		}
	}
	return bs
}

// states is the condition that the state is one of those wanted.
func states(wanted []bool) string {
	var in []string
	for s, w := range wanted {
		if w {
			in = append(in, fmt.Sprint(s))
		}
	}
	return "state IN (" + strings.Join(in, ", ") + ")"
}

// eachQuery is the query for a chunk: ?1 is the caller, ?2 the ID to go on from,
// ?3 how many. What is sorted is what the branches found, a chunk of each.
func eachQuery(f queue.Filter) (query string, args []any) {
	beyond, order := "id > ?2", "id"
	if f.Newest {
		beyond, order = "id < ?2", "id DESC"
	}
	var parts []string
	for _, b := range branches(f) {
		where := b.where
		if f.Unanswered && f.Caller != "" {
			where += " AND caller = ?1"
		}
		parts = append(parts, fmt.Sprintf("SELECT id FROM (SELECT id FROM execution %s WHERE %s AND %s ORDER BY %s LIMIT ?3)",
			b.index, where, beyond, order))
	}
	if len(parts) == 0 {
		parts = []string{"SELECT id FROM execution WHERE FALSE"}
	}
	chosen := strings.Join(parts, " UNION ALL ") + " ORDER BY " + order + " LIMIT ?3"
	return "SELECT " + whole + " FROM (" + chosen + `) AS chosen
		CROSS JOIN execution e ON e.id = chosen.id CROSS JOIN request r ON r.id = chosen.id`, []any{f.Caller}
}

// chunk reads the next executions. more is false when there are no others.
func (s *Store) chunk(ctx context.Context, query string, args []any) (xs []queue.Execution, more bool, err error) {
	if s.closed.Load() {
		return nil, false, queue.ErrClosed
	}
	rows, err := s.read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, false, err
	}
	defer rows.Close()
	for size := 0; err == nil && size < chunkBytes && rows.Next(); {
		var x queue.Execution
		if x, err = scan(rows); err == nil {
			xs = append(xs, x)
			size += len(x.Body) + len(x.Answer)
			more = size >= chunkBytes || len(xs) == args[len(args)-1]
		}
	}
	if err := s.log.settled(); err != nil {
		return nil, false, err
	}
	return xs, more, errors.Join(err, rows.Err())
}
