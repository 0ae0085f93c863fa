package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/headgate/headgate/internal/queue"
)

// rowsAtOnce are the numbers of rows that one INSERT takes. To run a statement
// costs more than a row of it does.
var rowsAtOnce = [...]int{64, 16, 4, 1}

// adder writes new executions: the rows of all the Adds of a transaction
// together. Its statements are the driver's own, for what database/sql does for
// each call would be a good part of the cost.
type adder struct {
	conn *sql.Conn
	find driver.Stmt
	// request and plain have one statement for each of rowsAtOnce.
	request, plain []driver.Stmt
	// other is for an execution that begins otherwise than queued and new.
	other driver.Stmt

	// Kept for the memory in them.
	rows  []*queue.Execution // with their IDs beside them
	ids   []int64
	turns []int64
	args  []driver.NamedValue
}

func (a *adder) prepare(ctx context.Context, c *sql.Conn) error {
	a.conn = c
	return c.Raw(func(dc any) (err error) {
		prepare := func(query string) (s driver.Stmt) {
			if err == nil {
				s, err = dc.(driver.ConnPrepareContext).PrepareContext(ctx, query)
			}
			return s
		}
		a.find = prepare("SELECT id FROM request INDEXED BY key WHERE caller = ? AND key = ?")
		for _, n := range rowsAtOnce {
			a.request = append(a.request, prepare(`INSERT OR ROLLBACK INTO request
				(id, method, path, deadline, body, caller, key, accepted, delivery, extra) VALUES `+
				repeat("(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", n)))
			a.plain = append(a.plain, prepare(`INSERT OR ROLLBACK INTO execution
				(id, state, parked, priority, turn, due, ended, status, remote, reason, caller, size) VALUES `+
				repeat("(?, 0, 0, ?, ?, 0, 0, 0, '', '', ?, ?)", n)))
		}
		a.other = prepare(`INSERT INTO execution
			(id, state, parked, priority, turn, due, ended, status, remote, reason, tally, answer,
			caller, size, outcome, unanswered, answer_type)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`)
		return err
	})
}

func repeat(s string, n int) string { return strings.TrimSuffix(strings.Repeat(s+", ", n), ", ") }

func (a *adder) close() error {
	if a.conn == nil {
		return nil
	}
	return a.conn.Raw(func(any) error {
		var errs []error
		for _, s := range append(append([]driver.Stmt{a.find, a.other}, a.request...), a.plain...) {
			if s != nil {
				errs = append(errs, s.Close())
			}
		}
		return errors.Join(errs...)
	})
}

// addition is what an Add asks for, and what the writer answers.
type addition struct {
	xs []queue.Execution
	// first is the ID of the first that is new; the others follow it.
	first int64
	// existing are the IDs of those that are there already, 0 for new ones;
	// nil if all are new.
	existing []int64
	// turns are those of the executions; nil if all are 0.
	turns []int64
}

func (d *addition) turned(i int, turn int64) {
	if d.turns == nil {
		d.turns = make([]int64, len(d.xs))
	}
	d.turns[i] = turn
}

// Add implements [queue.Store]. A batch of a thousand costs little more than a
// single one.
func (s *Store) Add(ctx context.Context, xs []queue.Execution) error {
	return s.add(ctx, xs, "")
}

// AddNoted is Add, and stores a note of each execution that is added, in the same
// transaction: under the meta key note and the ID. It is there until SetMeta
// forgets it; see [Store.EndedNotes].
func (s *Store) AddNoted(ctx context.Context, xs []queue.Execution, note string) error {
	return s.add(ctx, xs, note)
}

func (s *Store) add(ctx context.Context, xs []queue.Execution, note string) error {
	if s.closed.Load() {
		return queue.ErrClosed
	}
	if len(xs) == 0 {
		return ctx.Err()
	}
	weight := 0
	for i := range xs {
		x := &xs[i]
		if !queue.LegalStart(x.State) {
			return fmt.Errorf("adding an execution as %v: %w", x.State, queue.ErrIllegal)
		}
		weight += len(x.Path) + len(x.Body) + len(x.Extra) + len(x.Key) + len(x.Answer) + 200
	}
	a := &addition{xs: xs}
	o := &op{kind: accepting, weight: weight, add: a}
	if note != "" {
		o.run = func(t *transaction) error { return t.note(a, note) }
	}
	if err := s.w.do(ctx, o); err != nil {
		return err
	}
	next := a.first
	for i := range xs {
		if a.existing != nil && a.existing[i] != 0 {
			xs[i].ID, xs[i].Existing = a.existing[i], true
			continue
		}
		xs[i].ID, xs[i].Revision, xs[i].Existing, xs[i].Turn = next, 1, false, 0
		if a.turns != nil {
			xs[i].Turn = a.turns[i]
		}
		next++
	}
	return nil
}

// ofCaller is a key, which is its caller's own.
type ofCaller struct{ caller, key string }

// add makes all the additions among ops.
func (t *transaction) add(ops []*op) error {
	a := t.adder
	a.rows, a.ids, a.turns = a.rows[:0], a.ids[:0], a.turns[:0]
	defer func() { clear(a.rows) }() // they are their callers'
	return a.conn.Raw(func(any) error {
		for _, o := range ops {
			if o.add == nil {
				continue
			}
			if err := t.number(o.add); err != nil {
				return err
			}
		}
		return a.write()
	})
}

// number gives the executions of one Add their IDs, or finds that they have one.
func (t *transaction) number(d *addition) error {
	d.first, d.existing, d.turns = t.nextID, nil, nil
	for i := range d.xs {
		x := &d.xs[i]
		if x.Key != "" {
			id, err := t.keyed(x)
			if err != nil {
				return err
			}
			if id != 0 {
				if d.existing == nil {
					d.existing = make([]int64, len(d.xs))
				}
				d.existing[i] = id
				continue
			}
			if t.keys == nil {
				t.keys = map[ofCaller]int64{}
			}
			t.keys[ofCaller{x.Caller, x.Key}] = t.nextID
		}
		t.adder.rows = append(t.adder.rows, x)
		t.adder.ids = append(t.adder.ids, t.nextID)
		turn := t.turns.give(x)
		t.adder.turns = append(t.adder.turns, turn)
		if turn != 0 {
			d.turned(i, turn)
		}
		t.nextID++
		t.delta[x.State]++
		if !x.State.Ended() {
			t.opened(x.Caller, x.Priority, 1, int64(len(x.Body)))
		}
	}
	return nil
}

// note stores a note of each execution that d adds, once they are numbered.
func (t *transaction) note(d *addition, note string) error {
	next := d.first
	for i := range d.xs {
		if d.existing != nil && d.existing[i] != 0 {
			continue
		}
		if _, err := t.setMeta.ExecContext(context.Background(), NoteKey(note, next), []byte{1}); err != nil {
			return err
		}
		next++
	}
	return nil
}

// keyed returns the ID of the execution with x's key, 0 if there is none.
func (t *transaction) keyed(x *queue.Execution) (int64, error) {
	if id := t.keys[ofCaller{x.Caller, x.Key}]; id != 0 {
		return id, nil
	}
	a := t.adder
	a.args = a.args[:0]
	a.bind(x.Caller, x.Key)
	rows, err := a.find.(driver.StmtQueryContext).QueryContext(context.Background(), a.args)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	var found [1]driver.Value
	if err := rows.Next(found[:]); errors.Is(err, io.EOF) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	return found[0].(int64), nil
}

// write inserts the rows.
func (a *adder) write() error {
	for from := 0; from < len(a.rows); {
		at := 0
		for rowsAtOnce[at] > len(a.rows)-from {
			at++
		}
		to := from + rowsAtOnce[at]
		a.args = a.args[:0]
		for i := from; i < to; i++ {
			x := a.rows[i]
			a.bind(a.ids[i], x.Method, x.Path, nanos(x.Deadline), blob(x.Body), x.Caller, text(x.Key),
				nanos(x.Accepted), int64(x.Delivery), blob(x.Extra))
		}
		if err := a.exec(a.request[at]); err != nil {
			return err
		}
		if err := a.writeExecutions(from, to, a.plain[at]); err != nil {
			return err
		}
		from = to
	}
	return nil
}

// writeExecutions writes the halves that change; plain takes so many at once.
func (a *adder) writeExecutions(from, to int, plain driver.Stmt) error {
	a.args = a.args[:0]
	allPlain := true
	for i := from; i < to && allPlain; i++ {
		x := a.rows[i]
		allPlain = isPlain(x)
		a.bind(a.ids[i], int64(x.Priority), a.turns[i], text(x.Caller), int64(len(x.Body)))
	}
	if allPlain {
		return a.exec(plain)
	}
	for i := from; i < to; i++ {
		x := a.rows[i]
		tally, err := encodeTally(x.Tally)
		if err != nil {
			return err
		}
		a.args = a.args[:0]
		a.bind(a.ids[i], int64(x.State), parked(x.State, x.Due), int64(x.Priority), a.turns[i], nanos(x.Due), nanos(x.Ended),
			int64(x.Status), x.Remote, x.Reason, tally, blob(x.Answer),
			text(x.Caller), int64(len(x.Body)), outcome(x.State), int64(x.Tally.Unanswered), x.AnswerType)
		if err := a.exec(a.other); err != nil {
			return err
		}
	}
	return nil
}

// isPlain reports whether x begins as nearly all do: queued and with nothing
// behind it.
func isPlain(x *queue.Execution) bool {
	return x.State == queue.Queued && x.Due.IsZero() && x.Ended.IsZero() && x.Remote == "" && x.Status == 0 &&
		x.Reason == "" && len(x.Answer) == 0 && x.AnswerType == "" && reflect.ValueOf(&x.Tally).Elem().IsZero()
}

// bind adds parameters for the next exec.
func (a *adder) bind(values ...driver.Value) {
	for _, v := range values {
		a.args = append(a.args, driver.NamedValue{Ordinal: len(a.args) + 1, Value: v})
	}
}

func (a *adder) exec(s driver.Stmt) error {
	_, err := s.(driver.StmtExecContext).ExecContext(context.Background(), a.args)
	return err
}
