package sqlite

import (
	"database/sql"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"modernc.org/sqlite"
)

// log is the write-ahead log, as far as it is ours to see to: that what was
// committed is on disk before anybody hears of it, and how long the log has become.
//
// SQLite could sync it with each commit (synchronous=FULL). But then nothing is
// written while the disk is at it, and its fsync also has the file system write
// down when the file was changed. With synchronous=NORMAL the sync after a commit
// is left to us, and all others are as before: SQLite syncs the log before a
// checkpoint copies it, the file after that, and the log's head when it starts
// anew. So one sync is for all transactions that were committed before it began,
// and the next transaction is made meanwhile.
type log struct {
	file *os.File
	sync func(*os.File) error
	wg   sync.WaitGroup
	// knock has one entry if there may be something to sync. Closed at the end.
	knock chan struct{}

	// bytes is how much was appended since the log began anew, or more.
	bytes atomic.Int64

	mu   sync.Mutex // guards what follows
	cond *sync.Cond // when synced or lost changes
	// Transactions by number: whose commit has begun, whose commit is over,
	// and what is on disk.
	begun, committed, synced uint64
	pending                  []*op // of those that are committed and not on disk
	// lost is set when a commit may not be on disk. It is for good: what the
	// operating system could not write it forgets, and the next sync would
	// say that all is well.
	lost error
}

// frame is how much one page takes in the log, with its head.
const frame = 24 + 4096

// open is for a database that is in WAL mode already.
func (l *log) open(s *Store) (err error) {
	if l.sync = s.opt.syncLog; l.sync == nil {
		l.sync = syncData
	}
	l.cond = sync.NewCond(&l.mu)
	l.knock = make(chan struct{}, 1)
	// Its own handle on the file: no lock of SQLite's is on the log, so closing
	// it undoes none.
	if l.file, err = os.OpenFile(s.path+"-wal", os.O_RDWR, 0); err != nil {
		return err
	}
	info, err := l.file.Stat()
	if err != nil {
		return err
	}
	l.bytes.Store(info.Size())
	return nil
}

// start lets the syncs begin.
func (l *log) start() {
	l.wg.Go(func() {
		for range l.knock {
			l.syncOnce()
		}
	})
}

// stop returns when all that was committed is on disk. Nothing may be committed
// any more.
func (l *log) stop() {
	close(l.knock)
	l.wg.Wait()
}

func (l *log) close() error {
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}

// commit has the transaction of ops committed. They are finished once it is on
// disk, unless there is an error.
func (l *log) commit(ops []*op, commit func() error) error {
	l.mu.Lock()
	l.begun++
	l.mu.Unlock()
	err := commit()
	l.mu.Lock()
	l.committed = l.begun // also if it failed: somebody may wait for the number
	if err == nil {
		l.pending = append(l.pending, ops...)
	}
	l.mu.Unlock()
	select {
	case l.knock <- struct{}{}:
	default:
	}
	return err
}

// grown counts the pages that conn has written since it was last asked.
func (l *log) grown(conn *sql.Conn) {
	_ = conn.Raw(func(dc any) error { // there is such a status
		pages, _, err := dc.(sqlite.DBStatus).Status(sqlite.DBStatusCacheWrite, true)
		l.bytes.Add(int64(pages) * frame)
		return err
	})
}

// syncOnce brings to disk what is committed, and lets those go who wait for it.
func (l *log) syncOnce() {
	l.mu.Lock()
	number, ops, lost := l.committed, l.pending, l.lost
	l.pending = nil
	l.mu.Unlock()
	if lost == nil {
		if err := l.sync(l.file); err != nil {
			lost = fmt.Errorf("%w: %w", ErrLost, err)
		}
	}
	l.mu.Lock()
	l.synced, l.lost = number, lost
	l.mu.Unlock()
	l.cond.Broadcast()
	finish(ops, lost)
}

// settled returns once all that could be read until now is on disk.
func (l *log) settled() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for now := l.begun; l.synced < now && l.lost == nil; {
		l.cond.Wait()
	}
	return l.lost
}

// failed returns why nothing can be written any more, nil if all is well.
func (l *log) failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}
