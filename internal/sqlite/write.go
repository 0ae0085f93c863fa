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
	begin, commit, rollback *sql.Stmt
	promote, choose, claim  *sql.Stmt
	update, leave, cross    *sql.Stmt
	expired, forget, drop   *sql.Stmt
	issued                  *sql.Stmt
	total, addLoad, unload  *sql.Stmt
	setMeta, deleteMeta     *sql.Stmt
	setPresent, setStanding *sql.Stmt
	passed                  *sql.Stmt

	all   []*sql.Stmt
	adder *adder
}

const (
	// whole are the columns that scan reads, whole.
	whole = `e.id, r.caller, r.key, r.accepted, r.method, r.path, r.body, r.extra, e.priority, e.turn, r.deadline,
		r.delivery, e.revision, e.state, e.due, e.remote, e.tally, e.status, e.reason, e.answer, e.answer_type, e.ended`

	// INDEXED BY makes it an error, not a slow query, if SQLite should ever
	// choose another way.
	readyFirst = `FROM execution INDEXED BY ready WHERE state = 0 AND parked = 0
		AND (priority, turn) < (?, ?) ORDER BY priority, turn, id LIMIT ?`

	// changes are what every update writes, expected is what it asks for.
	changes = `state = ?3, parked = ?4, due = ?5, status = ?6, remote = ?7, reason = ?8, tally = ?9,
		unanswered = ?10, answer = ?11, answer_type = ?12, revision = revision + 1`
	expected = "id = ?1 AND state = ?2 AND (?15 = 0 OR revision = ?15)"
)

func (s *writeStatements) prepare(ctx context.Context, c *sql.Conn) error {
	for _, p := range []struct {
		stmt **sql.Stmt
		sql  string
	}{
		{&s.begin, "BEGIN IMMEDIATE"},
		{&s.commit, "COMMIT"},
		{&s.rollback, "ROLLBACK"},
		{&s.promote, `UPDATE execution SET parked = 0 WHERE id IN (
			SELECT id FROM execution INDEXED BY parked WHERE state = 0 AND parked = 1 AND due <= ?
			ORDER BY due, priority, id LIMIT ?)`},
		{&s.choose, "SELECT " + whole + " FROM (SELECT id AS first " + readyFirst + `)
			CROSS JOIN execution e ON e.id = first CROSS JOIN request r ON r.id = first`},
		{&s.claim, "UPDATE execution SET state = 1 WHERE id IN (SELECT id " + readyFirst + ")"},
		{&s.update, "UPDATE execution SET " + changes + " WHERE " + expected},
		{&s.leave, "UPDATE execution SET " + changes + " WHERE " + expected + " RETURNING priority, turn"},
		{&s.cross, "UPDATE execution SET " + changes + ", outcome = ?13, ended = ?14 WHERE " + expected +
			" RETURNING caller, size, priority, turn"},
		{&s.expired, `SELECT id, state FROM execution INDEXED BY ended
			WHERE outcome <> 0 AND ended < ? ORDER BY ended LIMIT ?`},
		{&s.forget, "DELETE FROM request WHERE id = ?"},
		{&s.drop, "DELETE FROM execution WHERE id = ?"},
		{&s.issued, "UPDATE issued SET last = ?"},
		{&s.total, "UPDATE total SET n = n + ? WHERE state = ?"},
		{&s.addLoad, `INSERT INTO load VALUES (?, ?, ?)
			ON CONFLICT DO UPDATE SET n = n + excluded.n, bytes = bytes + excluded.bytes`},
		{&s.unload, "DELETE FROM load WHERE caller = ? AND n = 0"},
		{&s.setMeta, "INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"},
		{&s.setPresent, "INSERT INTO present VALUES (?, ?) ON CONFLICT DO UPDATE SET turn = excluded.turn"},
		{&s.setStanding, `INSERT INTO standing VALUES (?, ?, ?, ?)
			ON CONFLICT DO UPDATE SET finish = excluded.finish, cost = excluded.cost`},
		{&s.passed, `DELETE FROM standing WHERE finish <= (
			SELECT turn FROM present WHERE present.priority = standing.priority)`},
		{&s.deleteMeta, "DELETE FROM meta WHERE key = ?"},
	} {
		var err error
		if *p.stmt, err = c.PrepareContext(ctx, p.sql); err != nil {
			return err
		}
		s.all = append(s.all, *p.stmt)
	}
	s.adder = &adder{}
	return s.adder.prepare(ctx, c)
}

func (s *writeStatements) close() error {
	var errs []error
	for _, stmt := range s.all {
		errs = append(errs, stmt.Close())
	}
	if s.adder != nil {
		errs = append(errs, s.adder.close())
	}
	return errors.Join(errs...)
}

// Claim implements [queue.Store].
func (s *Store) Claim(ctx context.Context, now time.Time, n int) ([]queue.Execution, error) {
	return s.claim(ctx, now, queue.LastPlace(), n)
}

// ClaimBefore implements [queue.Store].
func (s *Store) ClaimBefore(ctx context.Context, now time.Time, before queue.Place, n int) ([]queue.Execution, error) {
	return s.claim(ctx, now, before, n)
}

func (s *Store) claim(ctx context.Context, now time.Time, before queue.Place, n int) (xs []queue.Execution, err error) {
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
		rows, err := t.choose.QueryContext(ctx, before.Priority, before.Turn, n)
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
		if _, err := t.claim.ExecContext(ctx, before.Priority, before.Turn, n); err != nil {
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
	return s.w.do(ctx, &op{
		weight: len(u.Answer) + 500,
		saves:  u.From == queue.Claimed || u.From == queue.Sent, // sent, answered, or a poll
		run: func(t *transaction) error {
			changed, err := t.change(u, tally)
			if err != nil {
				return err
			}
			if !changed {
				return ownError{fmt.Errorf("execution %d from %v to %v: %w", u.ID, u.From, u.To, queue.ErrStale)}
			}
			t.delta[u.From]--
			t.delta[u.To]++
			return nil
		},
	})
}

// change makes u, unless its execution is not as it expects.
func (t *transaction) change(u queue.Update, tally any) (changed bool, err error) {
	ctx := context.Background()
	var ended int64
	if u.To.Ended() {
		ended = nanos(u.At)
	}
	args := []any{u.ID, int(u.From), int(u.To), parked(u.To, u.Due), nanos(u.Due), u.Status, u.Remote, u.Reason, tally,
		u.Tally.Unanswered, blob(u.Answer), u.AnswerType, outcome(u.To), ended, u.Revision}
	if u.From == queue.Claimed && u.To == queue.Sent {
		var priority int
		var turn int64
		err := t.leave.QueryRowContext(ctx, args...).Scan(&priority, &turn)
		if errors.Is(err, sql.ErrNoRows) {
			return false, nil
		}
		t.turns.left(priority, turn)
		return err == nil, err
	}
	if !u.From.Ended() && !u.To.Ended() {
		res, err := t.update.ExecContext(ctx, args...)
		if err != nil {
			return false, err
		}
		n, err := res.RowsAffected()
		return n > 0, err
	}
	var caller sql.NullString
	var size, turn int64
	var priority int
	err = t.cross.QueryRowContext(ctx, args...).Scan(&caller, &size, &priority, &turn)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return false, nil
	case err != nil:
		return false, err
	case !u.From.Ended():
		t.opened(caller.String, priority, -1, -size)
	case !u.To.Ended():
		t.opened(caller.String, priority, 1, size)
	}
	if u.UsesNoTurn() {
		t.turns.giveBack(standingKey{caller.String, priority}, turn)
	}
	return true, nil
}

// opened notes that so much more of a caller's is open.
func (t *transaction) opened(caller string, priority int, rows, bytes int64) {
	if t.load == nil {
		t.load, t.urgency = map[string]queue.Load{}, map[int]int64{}
	}
	t.urgency[priority] += rows
	l := t.load[caller]
	l.Rows += rows
	l.Bytes += bytes
	t.load[caller] = l
}

// Prune implements [queue.Store].
func (s *Store) Prune(ctx context.Context, before time.Time, n int) (pruned int, err error) {
	if s.closed.Load() {
		return 0, queue.ErrClosed
	}
	if n <= 0 {
		return 0, ctx.Err()
	}
	err = s.w.do(ctx, &op{weight: n * 1024, run: func(t *transaction) (err error) {
		pruned, err = t.prune(nanos(before), n)
		return err
	}})
	if err != nil {
		return 0, err
	}
	return pruned, nil
}

func (t *transaction) prune(before int64, n int) (pruned int, err error) {
	ctx := context.Background()
	rows, err := t.expired.QueryContext(ctx, before, n)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	var ids []int64
	var states []queue.State
	for rows.Next() {
		var id int64
		var state queue.State
		if err := rows.Scan(&id, (*int)(&state)); err != nil {
			return 0, err
		}
		ids, states = append(ids, id), append(states, state)
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	rows.Close() // the statement can't be open while its table changes
	if len(ids) == 0 {
		return 0, nil
	}
	for i, id := range ids {
		for _, stmt := range []*sql.Stmt{t.forget, t.drop} {
			if _, err := stmt.ExecContext(ctx, id); err != nil {
				return 0, err
			}
		}
		t.delta[states[i]]--
	}
	if _, err := t.passed.ExecContext(ctx); err != nil {
		return 0, err
	}
	// The greatest ID that was given may be among them.
	_, err = t.issued.ExecContext(ctx, t.nextID-1)
	return len(ids), err
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

// outcome is s as it is stored for whoever looks for what is open, or for what
// has this outcome: 0 for all that is open.
func outcome(s queue.State) int64 {
	if s.Ended() {
		return int64(s)
	}
	return 0
}

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

// text is s as it is stored where NULL is for none.
func text(s string) any {
	if s == "" {
		return nil
	}
	return s
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

// scan reads the columns of whole.
func scan(r *sql.Rows) (x queue.Execution, err error) {
	var accepted, deadline, due, ended int64
	var key sql.NullString
	var tally sql.RawBytes
	err = r.Scan(&x.ID, &x.Caller, &key, &accepted, &x.Method, &x.Path, &x.Body, &x.Extra, &x.Priority, &x.Turn, &deadline,
		(*int)(&x.Delivery), &x.Revision, (*int)(&x.State), &due, &x.Remote, &tally, &x.Status, &x.Reason, &x.Answer,
		&x.AnswerType, &ended)
	if err != nil {
		return x, err
	}
	x.Key = key.String
	x.Accepted, x.Deadline, x.Due, x.Ended = fromNanos(accepted), fromNanos(deadline), fromNanos(due), fromNanos(ended)
	if len(tally) > 0 {
		if err := json.Unmarshal(tally, &x.Tally); err != nil {
			return x, fmt.Errorf("%w: the tally of execution %d: %w", ErrDamaged, x.ID, err)
		}
	}
	return x, nil
}
