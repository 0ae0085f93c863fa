// Package sqlite keeps executions in one SQLite file on the local disk: the
// store for one machine. It is a [queue.Store].
//
// # What is stored
//
// The file PATH is a SQLite database in WAL mode with application_id
// 0x48644761 ("HdGa") and user_version 2:
//
//	request    one row per execution, written by Add and never again
//	  id        1, 2, 3, … in the order of acceptance
//	  method, path, deadline, body, caller, accepted, delivery, extra
//	  key       the caller's own, unique among the caller's
//	execution  the same ids; all that changes, kept apart so that a state
//	           change does not write the body again
//	  state     a queue.State
//	  parked    1 for a queued one that has a due time which no Claim has
//	            seen pass yet, else 0
//	  priority  lower goes first
//	  turn      then this, the turn of its caller's; 0 where nothing is shared
//	  due, ended, remote, tally (JSON), status, reason, answer, answer_type
//	  revision  1, and one more with each update
//	  caller    the request's, for the index; NULL for none
//	  size      how long the request's body is
//	  outcome   the state if it is an outcome, else 0
//	  unanswered  the tally's, for the index
//	total      how many executions are in each state
//	load       how many each caller has open, and how large their bodies are
//	           together; callers that have none are not there
//	standing   per caller and priority: where its next turn begins, and what its
//	           latest cost; what the present has passed means nothing
//	present    per priority: the latest turn that was put on the wire
//	issued     the greatest id that was given before the latest Prune
//	meta       key and value; the key "limiter" is what Options.Limiter gave
//
// Times are nanoseconds since 1970 in UTC, 0 for none. NULL is no body, no
// extra, no key, no answer, an empty tally. total, load, standing and present
// are changed by the same transaction as the executions: Open need not count
// them.
//
// A file of version 1 is brought up in one transaction when it is opened. That
// takes some seconds for a million rows; afterwards an older program refuses it.
//
// Three partial indexes hold only what is open, so that no Claim sees how many
// executions there are: "ready" by priority, turn and id, "parked" by due time,
// "flight" by id for what is claimed or sent. A Claim first moves what has come
// due from parked to ready, at most some thousands at once, so that a million
// that come due together are spread over many claims.
//
// The others are for whoever looks for something. "stage" is by outcome and id,
// "mine" by caller, outcome and id for those that have a caller: each is touched
// when an execution is added and when it ends, and by nothing in between. "key"
// finds the key, "ended" what may be pruned, "maybe" what was unanswered.
//
// Beside PATH stand PATH-wal and PATH-shm, which belong to SQLite and are part
// of the journal while it is open or after a crash; PATH.lock, which is empty
// and may stay; and PATH.reserve, which is there while the journal is open: a
// few megabytes that are given back when the disk is full, so that what is in
// flight can still be recorded.
package sqlite

import (
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gofrs/flock"
	_ "modernc.org/sqlite" // the driver

	"github.com/headgate/headgate/internal/queue"
)

// lookerWait is for somebody who looks into the file with a program of his own
// and locks it for a moment, in milliseconds.
const lookerWait = 10_000

// Options for [Open]. The zero value is good.
type Options struct {
	// Limiter, if set, gives what is to be stored under the meta key
	// "limiter". It is called once for each transaction in which an
	// execution that was claimed changes, and stored by that transaction:
	// what the limiter had handed out is on disk before the request it was
	// for leaves, and the gate that an answer closed is on disk with what
	// became of its execution. Close calls it once more, for what left no
	// trace in the executions, such as a refused login. It is called from
	// the store's writer, or from Close, after leave of the executions
	// concerned was called: it must be quick and must not use the store.
	// nil from it stores nothing.
	Limiter func() []byte

	// Reserve is how many bytes of the disk are held back for the time when
	// it is full; 0 means 4 MiB, less than 0 none. What is in flight needs
	// about 30 KiB each if its records come one by one, and little more than
	// its answers if many come together.
	Reserve int64

	// For tests and benchmarks of this package.
	maxBatch  int          // operations in one transaction; 0: 256
	softWAL   int64        // 0: 8 MiB
	hardWAL   int64        // 0: 64 MiB
	afterDrop func()       // called when the reserve was given back
	noReserve func() error // called in place of making the reserve anew
	syncLog   func(*os.File) error
}

// MetaLimiter is the meta key of what Options.Limiter gave.
const MetaLimiter = "limiter"

// Store is a journal in a SQLite file. Its methods are safe for concurrent use
// within the process that opened it; no second process can open the file.
//
// It is stronger than [queue.Store] asks: a method that changes something
// heeds its context while it waits for its turn and not while it is written,
// so that an error of the context means that nothing was changed.
type Store struct {
	path string
	opt  Options
	lock *flock.Flock

	w       writer
	log     log
	reserve reserve
	ckpt    checkpointer

	read  *sql.DB // the readers' pool: query_only
	stmts readStatements

	mu      sync.Mutex // guards counts, load and urgency
	counts  queue.Counts
	load    map[string]queue.Load
	allLoad queue.Load    // their sum
	urgency map[int]int64 // how many are open, by priority

	closed    atomic.Bool
	closeOnce sync.Once
	closeErr  error
}

var _ queue.Store = (*Store)(nil)

// Open opens the journal at path and creates it if there is none; its folder
// must exist. One process may have it open: a second Open fails at once with
// [ErrLocked], and a process that was killed holds nothing. Other errors to
// tell apart are [ErrForeign], [ErrNewer], [ErrDamaged], and those of package
// io/fs. What a crash left claimed or sent is as it was: see [queue.Recover].
func Open(path string, opt Options) (_ *Store, err error) {
	s := &Store{opt: opt}
	if s.path, err = resolve(path); err != nil {
		return nil, fmt.Errorf("opening journal %s: %w", path, err)
	}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("opening journal %s: %w", path, s.failed(err))
	}
	return s, nil
}

// resolve follows links, so that two names of one file meet in one lock.
func resolve(path string) (string, error) {
	if path == "" {
		return "", errors.New("its path is empty")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real, nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, filepath.Base(path)), nil
}

func (s *Store) open() (err error) {
	// The lock comes first of all: even to read the file's head and close it
	// would undo the locks that SQLite holds on it, should this process have
	// it open already.
	lockPath := s.path + ".lock"
	_, statErr := os.Lstat(lockPath)
	s.lock = flock.New(lockPath)
	locked, err := s.lock.TryLock()
	if err != nil {
		return err
	}
	if !locked {
		return ErrLocked
	}
	defer func() {
		if err == nil {
			return
		}
		s.release()
		if errors.Is(err, ErrForeign) && statErr != nil {
			os.Remove(lockPath) // leave no trace beside what is not ours
		}
	}()
	if err := checkHead(s.path); err != nil {
		return err
	}
	if err := s.w.open(s); err != nil {
		return err
	}
	if err := s.ckpt.open(s); err != nil {
		return err
	}
	if err := s.openReaders(); err != nil {
		return err
	}
	s.reserve = reserve{path: s.path + ".reserve", size: s.opt.Reserve, instead: s.opt.noReserve}
	if s.reserve.size == 0 {
		s.reserve.size = 4 << 20
	}
	if err := s.reserve.make(); err != nil {
		if !noSpace(err) {
			return err
		}
		// It opens all the same: what is there can be read, and recorded
		// as far as it fits.
		s.w.full = true
	}
	s.ckpt.start()
	s.log.start()
	s.w.start()
	return nil
}

// release gives back all that open took, in whatever state it is.
func (s *Store) release() error {
	var errs []error
	if s.read != nil {
		errs = append(errs, s.read.Close())
	}
	// The log's own handle first: on Windows SQLite could not remove the file.
	errs = append(errs, s.log.close(), s.ckpt.close(), s.w.close())
	if s.reserve.path != "" {
		errs = append(errs, s.reserve.drop())
	}
	errs = append(errs, s.lock.Unlock())
	return errors.Join(errs...)
}

// Close lets what was begun come to its end, brings the write-ahead log into
// the file and gives it free.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.closed.Store(true)
		s.w.stop()
		err := s.w.saveLimiter()
		s.log.stop()
		s.ckpt.stop()
		if err := errors.Join(err, s.release()); err != nil {
			s.closeErr = fmt.Errorf("closing journal %s: %w", s.path, err)
		}
	})
	return s.closeErr
}

// dsn names the file for database/sql, with pragmas that each connection runs.
// Whatever the path holds, none of it is read as a parameter.
// wait is how many milliseconds the connection waits for another one's lock.
func dsn(path string, wait int, pragmas ...string) string {
	q := url.Values{"_txlock": {"immediate"}, "_pragma": append([]string{
		fmt.Sprintf("busy_timeout(%d)", wait),
		"synchronous(FULL)", // the writer has its own way: see log
		"fullfsync(1)",      // macOS has an fsync that is none
		"checkpoint_fullfsync(1)",
		"wal_autocheckpoint(0)", // checkpoints have their own connection
	}, pragmas...)}
	slashed := filepath.ToSlash(path)
	if !strings.HasPrefix(slashed, "/") {
		slashed = "/" + slashed // file:/C:/…
	}
	return "file:" + (&url.URL{Path: slashed}).EscapedPath() + "?" + q.Encode()
}
