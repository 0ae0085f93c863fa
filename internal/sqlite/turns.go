package sqlite

import (
	"context"
	"maps"

	"github.com/headgate/headgate/internal/queue"
)

// turns are what callers have had of the queue, and where the present is. The
// writer has those of the file, in memory; each transaction has what it changes
// of them, on top.
type turns struct {
	under     *turns // nil for the writer's
	present   map[int]int64
	standings map[standingKey]queue.Standing
}

// standingKey is a caller among those of one priority.
type standingKey struct {
	caller   string
	priority int
}

func newTurns() turns {
	return turns{present: map[int]int64{}, standings: map[standingKey]queue.Standing{}}
}

func (t *turns) presentOf(priority int) int64 {
	if at, ok := t.present[priority]; ok || t.under == nil {
		return at
	}
	return t.under.presentOf(priority)
}

func (t *turns) standing(key standingKey) queue.Standing {
	if s, ok := t.standings[key]; ok || t.under == nil {
		return s
	}
	return t.under.standing(key)
}

func (t *turns) set(key standingKey, s queue.Standing) {
	if t.standings == nil {
		t.standings = map[standingKey]queue.Standing{}
	}
	t.standings[key] = s
}

// give gives x, which is new, its turn.
func (t *turns) give(x *queue.Execution) (turn int64) {
	if x.Weight == 0 || x.State != queue.Queued {
		return 0
	}
	key := standingKey{x.Caller, x.Priority}
	s := t.standing(key)
	turn = s.Next(t.presentOf(x.Priority), x.Weight)
	t.set(key, s)
	return turn
}

// left notes that an execution was put on the wire.
func (t *turns) left(priority int, turn int64) {
	if turn <= t.presentOf(priority) {
		return
	}
	if t.present == nil {
		t.present = map[int]int64{}
	}
	t.present[priority] = turn
}

// giveBack gives back a turn that is not used.
func (t *turns) giveBack(key standingKey, turn int64) {
	if turn == 0 {
		return
	}
	s := t.standing(key)
	s.GiveBack(t.presentOf(key.priority), turn)
	t.set(key, s)
}

// store writes what a transaction has changed.
func (t *turns) store(ctx context.Context, w *writeStatements) error {
	for priority, at := range t.present {
		if _, err := w.setPresent.ExecContext(ctx, priority, at); err != nil {
			return err
		}
	}
	for key, s := range t.standings {
		if _, err := w.setStanding.ExecContext(ctx, key.caller, key.priority, s.Finish, s.Cost); err != nil {
			return err
		}
	}
	return nil
}

// committed takes over what a transaction has changed.
func (t *turns) committed(by *turns) {
	maps.Copy(t.present, by.present)
	maps.Copy(t.standings, by.standings)
}

// readTurns reads the turns of the file.
func (w *writer) readTurns(ctx context.Context) error {
	w.turns = newTurns()
	present, err := w.conn.QueryContext(ctx, "SELECT priority, turn FROM present")
	if err != nil {
		return err
	}
	defer present.Close()
	for present.Next() {
		var priority int
		var at int64
		if err := present.Scan(&priority, &at); err != nil {
			return err
		}
		w.turns.present[priority] = at
	}
	if err := present.Err(); err != nil {
		return err
	}
	standings, err := w.conn.QueryContext(ctx, "SELECT caller, priority, finish, cost FROM standing")
	if err != nil {
		return err
	}
	defer standings.Close()
	for standings.Next() {
		var key standingKey
		var s queue.Standing
		if err := standings.Scan(&key.caller, &key.priority, &s.Finish, &s.Cost); err != nil {
			return err
		}
		w.turns.standings[key] = s
	}
	return standings.Err()
}
