package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/headgate/headgate/internal/queue"
)

const (
	// defaultMaxBatch operations at most go into one transaction: beyond it
	// more gain little, and the first of them would wait for the last.
	defaultMaxBatch = 256
	// maxWeight bounds a transaction by what it writes, in bytes about. An
	// operation that is heavier goes alone.
	maxWeight = 8 << 20
)

// writer makes all changes. While one transaction is made, or on its way to the
// disk, the operations that come in gather, and the next takes them all: one sync
// for many, and no wait for company when there is none.
type writer struct {
	s        *Store
	db       *sql.DB
	conn     *sql.Conn
	stmts    writeStatements
	maxBatch int
	wg       sync.WaitGroup

	// Only the writer's goroutine uses these.
	nextID int64 // of the next execution
	turns  turns
	full   bool // no Add and no Claim until the reserve is held again

	mu      sync.Mutex // guards what follows
	waiting []*op
	closed  bool
	knock   chan struct{} // has one entry if waiting is not empty, or closed
}

// kind is what the writer must know of an operation.
type kind int

const (
	changing  kind = iota // what is there already: must go on when the disk is full
	accepting             // brings work in, or starts it
)

// op is one operation. It succeeds or fails on its own.
type op struct {
	kind   kind
	weight int
	saves  bool // the limiter may have changed: see Options.Limiter
	// run makes the change within a transaction. It may be run again after
	// a rollback. An error of our own (stale, say) must leave nothing
	// changed; any other undoes the whole transaction.
	run func(*transaction) error

	// add is what an Add brings. It is made before any run.
	add *addition

	err  error
	done chan struct{} // closed when err is final
}

// transaction is one transaction of the writer's and what it will have changed
// outside the file.
type transaction struct {
	*writeStatements
	nextID int64
	delta  queue.Counts
	load   map[string]queue.Load // likewise
	turns  turns                 // likewise
	keys   map[ofCaller]int64    // of what it adds

	urgency map[int]int64 // as Store.urgency
}

// ownError is an operation's own failure; the others of its batch go on.
type ownError struct{ error }

func (e ownError) Unwrap() error { return e.error }

func (w *writer) open(s *Store) (err error) {
	w.s = s
	w.knock = make(chan struct{}, 1)
	if w.maxBatch = s.opt.maxBatch; w.maxBatch == 0 {
		w.maxBatch = defaultMaxBatch
	}
	hard := s.opt.hardWAL
	if hard == 0 {
		hard = defaultHardWAL
	}
	// A log that was cut would have to find its room anew.
	w.db, err = sql.Open("sqlite", dsn(s.path, lookerWait, "cache_size(-16384)", fmt.Sprintf("journal_size_limit(%d)", hard)))
	if err != nil {
		return err
	}
	ctx := context.Background()
	if w.conn, err = w.db.Conn(ctx); err != nil {
		return err
	}
	if err := prepare(ctx, w.conn); err != nil {
		return err
	}
	if _, err := w.conn.ExecContext(ctx, "PRAGMA synchronous=NORMAL"); err != nil { // see log
		return err
	}
	if err := w.stmts.prepare(ctx, w.conn); err != nil {
		return err
	}
	err = w.conn.QueryRowContext(ctx, `SELECT max(coalesce((SELECT max(id) FROM execution), 0),
		(SELECT last FROM issued)) + 1`).Scan(&w.nextID)
	if err != nil {
		return err
	}
	if err := w.readTurns(ctx); err != nil {
		return err
	}
	if err := w.readSums(ctx); err != nil {
		return err
	}
	return s.log.open(s)
}

// readSums reads what is kept so that nobody need count.
func (w *writer) readSums(ctx context.Context) error {
	s := w.s
	rows, err := w.conn.QueryContext(ctx, "SELECT state, n FROM total")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var state int
		var n int64
		if err := rows.Scan(&state, &n); err != nil {
			return err
		}
		if state >= 0 && state < len(s.counts) {
			s.counts[state] = n
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	s.load = map[string]queue.Load{}
	loads, err := w.conn.QueryContext(ctx, "SELECT caller, n, bytes FROM load")
	if err != nil {
		return err
	}
	defer loads.Close()
	for loads.Next() {
		var caller string
		var l queue.Load
		if err := loads.Scan(&caller, &l.Rows, &l.Bytes); err != nil {
			return err
		}
		s.load[caller] = l
		s.allLoad.Rows += l.Rows
		s.allLoad.Bytes += l.Bytes
	}
	if err := loads.Err(); err != nil {
		return err
	}
	return w.readUrgency(ctx)
}

// readUrgency counts how many are open of each priority, in indexes that hold no
// others.
func (w *writer) readUrgency(ctx context.Context) error {
	w.s.urgency = map[int]int64{}
	for _, from := range []string{
		"INDEXED BY ready WHERE state = 0 AND parked = 0",
		"INDEXED BY parked WHERE state = 0 AND parked = 1",
		"INDEXED BY flight WHERE state IN (1, 2)",
	} {
		rows, err := w.conn.QueryContext(ctx, "SELECT priority, count(*) FROM execution "+from+" GROUP BY priority")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var priority int
			var n int64
			if err := rows.Scan(&priority, &n); err != nil {
				return err
			}
			w.s.urgency[priority] += n
		}
		if err := rows.Err(); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) start() { w.wg.Go(w.loop) }

// stop refuses what comes from now on and waits for what came before.
func (w *writer) stop() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.ring()
	w.wg.Wait()
}

// saveLimiter stores the limiter's state once more. It comes after stop.
func (w *writer) saveLimiter() error {
	if w.s.opt.Limiter == nil {
		return nil
	}
	v := w.s.opt.Limiter()
	if v == nil {
		return nil
	}
	o := &op{done: make(chan struct{}), run: func(t *transaction) error {
		_, err := t.setMeta.ExecContext(context.Background(), MetaLimiter, v)
		return err
	}}
	w.batch([]*op{o})
	<-o.done
	return w.s.failed(o.err)
}

func (w *writer) close() error {
	var errs []error
	if w.conn != nil {
		errs = append(errs, w.stmts.close(), w.conn.Close())
	}
	if w.db != nil {
		errs = append(errs, w.db.Close())
	}
	return errors.Join(errs...)
}

func (w *writer) ring() {
	select {
	case w.knock <- struct{}{}:
	default:
	}
}

// do has o done and returns its error. A context that ends takes o out of the
// line; once it is being written, do waits for the end of that.
func (w *writer) do(ctx context.Context, o *op) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	o.done = make(chan struct{})
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return queue.ErrClosed
	}
	w.waiting = append(w.waiting, o)
	w.mu.Unlock()
	w.ring()

	select {
	case <-o.done:
		return w.s.failed(o.err)
	case <-ctx.Done():
	}
	if w.withdraw(o) {
		return ctx.Err()
	}
	<-o.done
	return w.s.failed(o.err)
}

// withdraw takes o out of the line, if it is still there.
func (w *writer) withdraw(o *op) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, x := range w.waiting {
		if x == o {
			w.waiting = append(w.waiting[:i], w.waiting[i+1:]...)
			return true
		}
	}
	return false
}

func (w *writer) loop() {
	for range w.knock {
		for {
			ops, closed := w.take()
			if len(ops) == 0 {
				if closed {
					return
				}
				break
			}
			w.batch(ops)
			w.gather()
		}
	}
}

// gather gives way to those that were just let go, as long as they come back with
// more: so the next transaction is as large as it can be. When nobody else is
// about to run it takes no time.
func (w *writer) gather() {
	for before := -1; ; {
		w.mu.Lock()
		now := len(w.waiting)
		w.mu.Unlock()
		if now <= before || now >= w.maxBatch {
			return
		}
		before = now
		runtime.Gosched()
	}
}

// take takes from the line what fits in one transaction.
func (w *writer) take() (ops []*op, closed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, weight := 0, 0
	for n < len(w.waiting) && n < w.maxBatch {
		weight += w.waiting[n].weight
		if n > 0 && weight > maxWeight {
			break
		}
		n++
	}
	ops = append(ops, w.waiting[:n]...)
	rest := copy(w.waiting, w.waiting[n:])
	clear(w.waiting[rest:])
	w.waiting = w.waiting[:rest]
	return ops, w.closed
}

// batch does ops, in one transaction if it can be. Their callers are let go once
// that is on disk, or has failed.
func (w *writer) batch(ops []*op) {
	if w.full {
		ops = w.makeRoom(ops)
	}
	if len(ops) == 0 {
		return
	}
	err := w.transact(ops)
	if err != nil && w.ranFull(err) {
		// What is in flight is recorded in the room that was held back;
		// for new work it is not meant.
		ops = refuse(ops, err)
		if len(ops) == 0 {
			return
		}
		err = w.transact(ops)
	}
	if err == nil {
		return
	}
	if len(ops) == 1 {
		finish(ops, err)
		return
	}
	// One of them may be at fault, or not all of them fit.
	for _, o := range ops {
		if err := w.transact([]*op{o}); err != nil {
			finish([]*op{o}, err)
		}
	}
}

// finish lets the callers of ops go. err is what befell them all.
func finish(ops []*op, err error) {
	for _, o := range ops {
		if err != nil {
			o.err = err
		}
		close(o.done)
	}
}

// refuse ends the operations that bring in or start work and returns the rest.
func refuse(ops []*op, cause error) (rest []*op) {
	for _, o := range ops {
		if o.kind == accepting {
			finish([]*op{o}, fmt.Errorf("%w: %w", queue.ErrFull, cause))
		} else {
			rest = append(rest, o)
		}
	}
	return rest
}

// makeRoom is called when the disk was full. If work is to be taken in, it
// tries to hold room back again, and refuses the work if there is none.
func (w *writer) makeRoom(ops []*op) []*op {
	for _, o := range ops {
		if o.kind != accepting {
			continue
		}
		if err := w.s.reserve.make(); err != nil {
			return refuse(ops, err)
		}
		w.full = false
		break
	}
	return ops
}

// ranFull reports whether err came from a full disk, and gives the reserve
// back if so.
func (w *writer) ranFull(err error) bool {
	r := &w.s.reserve
	switch {
	case w.s.log.failed() != nil:
		return false
	case noSpace(err):
	case ioError(err):
		// SQLite does not say why. If the room that is held back helps,
		// or can't be had again, it was that.
		if r.held {
			r.drop()
			if r.make() == nil {
				return false
			}
		}
	default:
		return false
	}
	w.full = true
	r.drop()
	if w.s.opt.afterDrop != nil {
		w.s.opt.afterDrop()
	}
	// A log that is copied starts anew in the room that it has.
	w.s.ckpt.restart()
	return true
}

// transact does ops in one transaction. On an error nothing was changed; the
// failures of single operations stand in them. Without one, the log finishes ops.
func (w *writer) transact(ops []*op) (err error) {
	w.s.ckpt.turn <- struct{}{}
	defer func() { <-w.s.ckpt.turn }()
	if err := w.s.log.failed(); err != nil {
		return err
	}
	ctx := context.Background()
	if _, err := w.stmts.begin.ExecContext(ctx); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// Some errors have rolled back already.
			_, _ = w.stmts.rollback.ExecContext(ctx)
		}
	}()
	t := transaction{writeStatements: &w.stmts, nextID: w.nextID, turns: turns{under: &w.turns}}
	saves := false
	// Whose order does not matter: all of ops are waited for at this moment.
	if err := t.add(ops); err != nil {
		return err
	}
	for _, o := range ops {
		if o.run == nil {
			continue
		}
		o.err = o.run(&t)
		if own, ok := errors.AsType[ownError](o.err); ok {
			o.err = own.error
			continue
		}
		if o.err != nil {
			return o.err
		}
		saves = saves || o.saves
	}
	if err := t.sum(ctx); err != nil {
		return err
	}
	if saves && w.s.opt.Limiter != nil {
		if v := w.s.opt.Limiter(); v != nil {
			if _, err := w.stmts.setMeta.ExecContext(ctx, MetaLimiter, v); err != nil {
				return err
			}
		}
	}
	if err := w.s.log.commit(ops, func() error { return w.commit(ctx, &t) }); err != nil {
		return err
	}
	w.s.ckpt.grown()
	return nil
}

// commit commits the open transaction, which is t.
func (w *writer) commit(ctx context.Context, t *transaction) error {
	if _, err := w.stmts.commit.ExecContext(ctx); err != nil {
		return err
	}
	w.s.log.grown(w.conn)
	w.nextID = t.nextID
	w.turns.committed(&t.turns)
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for state, n := range t.delta {
		s.counts[state] += n
	}
	for caller, l := range t.load {
		s.allLoad.Rows += l.Rows
		s.allLoad.Bytes += l.Bytes
		now := s.load[caller]
		now.Rows += l.Rows
		now.Bytes += l.Bytes
		if now.Rows == 0 {
			delete(s.load, caller)
		} else {
			s.load[caller] = now
		}
	}
	for priority, n := range t.urgency {
		s.urgency[priority] += n
	}
	return nil
}

// sum stores what the transaction adds up to.
func (t *transaction) sum(ctx context.Context) error {
	for state, n := range t.delta {
		if n != 0 {
			if _, err := t.total.ExecContext(ctx, n, state); err != nil {
				return err
			}
		}
	}
	for caller, l := range t.load {
		if _, err := t.addLoad.ExecContext(ctx, caller, l.Rows, l.Bytes); err != nil {
			return err
		}
		if l.Rows < 0 {
			if _, err := t.unload.ExecContext(ctx, caller); err != nil {
				return err
			}
		}
	}
	return t.turns.store(ctx, t.writeStatements)
}
