package sqlite

import (
	"context"
	"database/sql"
	"sync"
)

// A checkpoint copies what the write-ahead log holds into the file. Done by
// the writer it is the slowest thing that can happen to a commit, so it has a
// connection and a goroutine of its own, and runs while the writer goes on.
//
// But the log starts anew, at its beginning, only when a transaction begins at
// a moment at which all of it is copied, and under steady load there is no
// such moment: it would grow without end. So when it has grown past hardWAL,
// the writer is held back for one more checkpoint, right after the first,
// which has left little to do. That one also waits for the readers that are
// still at the log, some milliseconds each, and the next transaction begins at
// the beginning.
const (
	defaultSoftWAL = 8 << 20
	defaultHardWAL = 64 << 20
	// readerWait bounds the wait for readers, in milliseconds: somebody with
	// a program of his own may hold a read transaction open for hours.
	readerWait = 500
)

type checkpointer struct {
	db   *sql.DB
	log  *log
	soft int64 // begin in the background
	hard int64 // hold the writer back

	// turn is taken by the writer for each transaction, and by the
	// checkpoint that holds it back.
	turn chan struct{}
	// due has one entry if the log has grown enough.
	due  chan struct{}
	quit chan struct{}
	wg   sync.WaitGroup

	// next is the size at which the writer asks again. Only it uses it.
	next int64
}

func (c *checkpointer) open(s *Store) error {
	c.log = &s.log
	c.soft, c.hard = s.opt.softWAL, s.opt.hardWAL
	if c.soft == 0 {
		c.soft = defaultSoftWAL
	}
	if c.hard == 0 {
		c.hard = defaultHardWAL
	}
	c.next = c.soft
	c.turn = make(chan struct{}, 1)
	c.due = make(chan struct{}, 1)
	c.quit = make(chan struct{})
	var err error
	if c.db, err = sql.Open("sqlite", dsn(s.path, readerWait, "cache_size(-1024)")); err != nil {
		return err
	}
	c.db.SetMaxOpenConns(1)
	return c.db.Ping()
}

func (c *checkpointer) start() {
	c.wg.Go(func() {
		for {
			select {
			case <-c.quit:
				return
			case <-c.due:
				c.background()
			}
		}
	})
}

// grown is called by the writer after each commit.
func (c *checkpointer) grown() {
	size := c.log.bytes.Load()
	if size <= c.soft {
		c.next = c.soft
		return
	}
	if size < c.next && size < c.hard {
		return
	}
	select {
	case c.due <- struct{}{}:
		c.next = size + c.soft
	default: // still at the last one
	}
}

func (c *checkpointer) background() {
	c.checkpoint("PASSIVE")
	if c.log.bytes.Load() >= c.hard {
		c.restart()
	}
}

// restart holds the writer back until the log can start anew.
func (c *checkpointer) restart() {
	c.turn <- struct{}{}
	if c.checkpoint("RESTART") {
		c.log.bytes.Store(0)
	}
	<-c.turn
}

// checkpoint copies what it can, and reports whether nothing was in its way. An
// error (a full disk, say) is no loss: the log keeps what it holds.
func (c *checkpointer) checkpoint(mode string) bool {
	var busy, frames, copied int
	// QueryRow, for the pragma answers with a row even when it could not.
	err := c.db.QueryRowContext(context.Background(), "PRAGMA wal_checkpoint("+mode+")").Scan(&busy, &frames, &copied)
	return err == nil && busy == 0
}

func (c *checkpointer) stop() {
	close(c.quit)
	c.wg.Wait()
}

func (c *checkpointer) close() error {
	if c.db == nil {
		return nil
	}
	return c.db.Close()
}
