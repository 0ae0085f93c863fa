package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/headgate/headgate/internal/queue"
)

// promoteMin is how many parked executions that came due a claim lets in at
// least; always some times what it takes out, so that it catches up.
const promoteMin = 1024

// writeStatements are prepared on the writer's connection.
type writeStatements struct {
	begin, commit, rollback    *sql.Stmt
	addRequest, addExecution   *sql.Stmt
	promote, choose, claim     *sql.Stmt
	update                     *sql.Stmt
	total, setMeta, deleteMeta *sql.Stmt

	all []*sql.Stmt
}

const (
	// whole are the columns that scan reads, whole.
	whole = `e.id, r.method, r.path, r.body, e.priority, r.deadline, e.state, e.due,
		e.remote, e.tally, e.status, e.reason, e.answer, e.ended`

	// INDEXED BY makes it an error, not a slow query, if SQLite should ever
	// choose another way.
	readyFirst = `FROM execution INDEXED BY ready WHERE state = 0 AND parked = 0
		ORDER BY priority, id LIMIT ?`
)

func (s *writeStatements) prepare(ctx context.Context, c *sql.Conn) error {
	for _, p := range []struct {
		stmt **sql.Stmt
		sql  string
	}{
		{&s.begin, "BEGIN IMMEDIATE"},
		{&s.commit, "COMMIT"},
		{&s.rollback, "ROLLBACK"},
		{&s.addRequest, "INSERT INTO request (id, method, path, deadline, body) VALUES (?, ?, ?, ?, ?)"},
		{&s.addExecution, `INSERT INTO execution
			(id, state, parked, priority, due, ended, status, remote, reason, tally, answer)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`},
		{&s.promote, `UPDATE execution SET parked = 0 WHERE id IN (
			SELECT id FROM execution INDEXED BY parked WHERE state = 0 AND parked = 1 AND due <= ?
			ORDER BY due, priority, id LIMIT ?)`},
		{&s.choose, "SELECT " + whole + " FROM (SELECT id AS first " + readyFirst + `)
			CROSS JOIN execution e ON e.id = first CROSS JOIN request r ON r.id = first`},
		{&s.claim, "UPDATE execution SET state = 1 WHERE id IN (SELECT id " + readyFirst + ")"},
		{&s.update, `UPDATE execution SET state = ?, parked = ?, due = ?, ended = ?, status = ?,
			remote = ?, reason = ?, tally = ?, answer = ? WHERE id = ? AND state = ?`},
		{&s.total, "UPDATE total SET n = n + ? WHERE state = ?"},
		{&s.setMeta, "INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"},
		{&s.deleteMeta, "DELETE FROM meta WHERE key = ?"},
	} {
		var err error
		if *p.stmt, err = c.PrepareContext(ctx, p.sql); err != nil {
			return err
		}
		s.all = append(s.all, *p.stmt)
	}
	return nil
}

func (s *writeStatements) close() error {
	var errs []error
	for _, stmt := range s.all {
		errs = append(errs, stmt.Close())
	}
	return errors.Join(errs...)
}

// Add implements [queue.Store]. A batch of a thousand costs little more than a
// single one.
func (s *Store) Add(ctx context.Context, xs []queue.Execution) error {
	if s.closed.Load() {
		return queue.ErrClosed
	}
	if len(xs) == 0 {
		return ctx.Err()
	}
	weight := 0
	tallies := make([]any, len(xs))
	for i := range xs {
		x := &xs[i]
		if !queue.LegalStart(x.State) {
			return fmt.Errorf("adding an execution as %v: %w", x.State, queue.ErrIllegal)
		}
		var err error
		if tallies[i], err = encodeTally(x.Tally); err != nil {
			return err
		}
		weight += len(x.Path) + len(x.Body) + len(x.Answer) + 200
	}
	var first int64
	err := s.w.do(ctx, &op{kind: accepting, weight: weight, run: func(t *transaction) error {
		ctx := context.Background()
		first = t.nextID
		for i := range xs {
			x := &xs[i]
			id := first + int64(i)
			_, err := t.addRequest.ExecContext(ctx, id, x.Method, x.Path, nanos(x.Deadline), blob(x.Body))
			if err != nil {
				return err
			}
			_, err = t.addExecution.ExecContext(ctx, id, int(x.State), parked(x.State, x.Due), x.Priority,
				nanos(x.Due), nanos(x.Ended), x.Status, x.Remote, x.Reason, tallies[i], blob(x.Answer))
			if err != nil {
				return err
			}
			t.delta[x.State]++
		}
		t.nextID += int64(len(xs))
		return nil
	}})
	if err != nil {
		return err
	}
	for i := range xs {
		xs[i].ID = first + int64(i)
	}
	return nil
}

// Claim implements [queue.Store].
func (s *Store) Claim(ctx context.Context, now time.Time, n int) (xs []queue.Execution, err error) {
	if s.closed.Load() {
		return nil, queue.ErrClosed
	}
	if n <= 0 {
		return nil, ctx.Err()
	}
	err = s.w.do(ctx, &op{kind: accepting, weight: n * 1024, run: func(t *transaction) error {
		ctx := context.Background()
		xs = nil
		if _, err := t.promote.ExecContext(ctx, nanos(now), max(promoteMin, 4*n)); err != nil {
			return err
		}
		rows, err := t.choose.QueryContext(ctx, n)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			x, err := scan(rows)
			if err != nil {
				return err
			}
			x.State = queue.Claimed
			xs = append(xs, x)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		rows.Close() // the statement can't be open while its table changes
		if len(xs) == 0 {
			return nil
		}
		if _, err := t.claim.ExecContext(ctx, n); err != nil {
			return err
		}
		t.delta[queue.Queued] -= int64(len(xs))
		t.delta[queue.Claimed] += int64(len(xs))
		return nil
	}})
	if err != nil {
		return nil, err
	}
	return xs, nil
}

// Update implements [queue.Store].
func (s *Store) Update(ctx context.Context, u queue.Update) error {
	if s.closed.Load() {
		return queue.ErrClosed
	}
	if !queue.LegalUpdate(u.From, u.To) {
		return fmt.Errorf("execution %d from %v to %v: %w", u.ID, u.From, u.To, queue.ErrIllegal)
	}
	tally, err := encodeTally(u.Tally)
	if err != nil {
		return err
	}
	var ended int64
	if u.To.Ended() {
		ended = nanos(u.At)
	}
	return s.w.do(ctx, &op{
		weight: len(u.Answer) + 500,
		saves:  u.From != queue.Queued, // sent, answered, or a poll
		run: func(t *transaction) error {
			res, err := t.update.ExecContext(context.Background(), int(u.To), parked(u.To, u.Due), nanos(u.Due),
				ended, u.Status, u.Remote, u.Reason, tally, blob(u.Answer), u.ID, int(u.From))
			if err != nil {
				return err
			}
			n, err := res.RowsAffected()
			if err != nil {
				return err
			}
			if n == 0 {
				return ownError{fmt.Errorf("execution %d from %v to %v: %w", u.ID, u.From, u.To, queue.ErrStale)}
			}
			t.delta[u.From]--
			t.delta[u.To]++
			return nil
		},
	})
}

// SetMeta implements [queue.Store].
func (s *Store) SetMeta(ctx context.Context, key string, value []byte) error {
	if s.closed.Load() {
		return queue.ErrClosed
	}
	value = slices.Clone(value)
	return s.w.do(ctx, &op{weight: len(value), run: func(t *transaction) (err error) {
		if value == nil {
			_, err = t.deleteMeta.ExecContext(context.Background(), key)
		} else {
			_, err = t.setMeta.ExecContext(context.Background(), key, value)
		}
		return err
	}})
}

// parked says whether an execution goes to the index of those that wait for a
// time. There is no clock here: one whose time has passed waits for the next
// Claim to see it.
func parked(s queue.State, due time.Time) bool { return s == queue.Queued && !due.IsZero() }

// nanos is t as it is stored. What is out of range (some centuries from now)
// becomes the nearest that is in it.
func nanos(t time.Time) int64 {
	switch {
	case t.IsZero():
		return 0
	case t.Unix() > math.MaxInt64/int64(time.Second)-1:
		return math.MaxInt64
	case t.Unix() < math.MinInt64/int64(time.Second)+1:
		return math.MinInt64
	}
	return t.UnixNano()
}

func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

// blob is b as it is stored: NULL for none.
func blob(b []byte) any {
	if len(b) == 0 {
		return nil
	}
	return b
}

func encodeTally(t queue.Tally) (any, error) {
	b, err := json.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("encoding a tally: %w", err)
	}
	if string(b) == "{}" {
		return nil, nil
	}
	return string(b), nil
}

// scanner is a *sql.Rows or a *sql.Row.
type scanner interface{ Scan(...any) error }

// scan reads the columns of whole.
func scan(r scanner) (x queue.Execution, err error) {
	var deadline, due, ended int64
	var tally sql.RawBytes
	err = r.Scan(&x.ID, &x.Method, &x.Path, &x.Body, &x.Priority, &deadline, (*int)(&x.State), &due,
		&x.Remote, &tally, &x.Status, &x.Reason, &x.Answer, &ended)
	if err != nil {
		return x, err
	}
	x.Deadline, x.Due, x.Ended = fromNanos(deadline), fromNanos(due), fromNanos(ended)
	if len(tally) > 0 {
		if err := json.Unmarshal(tally, &x.Tally); err != nil {
			return x, fmt.Errorf("%w: the tally of execution %d: %w", ErrDamaged, x.ID, err)
		}
	}
	return x, nil
}
