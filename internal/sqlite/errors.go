package sqlite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"modernc.org/sqlite"
	sqlitelib "modernc.org/sqlite/lib"

	"github.com/headgate/headgate/internal/queue"
)

// Errors of [Open] that a caller may want to tell apart. Open wraps them and
// names the path.
var (
	// ErrLocked: it is open already, here or in another process.
	ErrLocked = errors.New("it is in use by another run")
	// ErrForeign: the file is something else. It was not changed.
	ErrForeign = errors.New("this file is not a headgate journal")
	// ErrNewer: a newer version of this program wrote it.
	ErrNewer = errors.New("it was written by a newer version of headgate")
	// ErrDamaged: it is one of ours and can't be read. Any method may
	// return it.
	ErrDamaged = errors.New("the journal is damaged")
	// ErrLost: the disk failed while something was written to it. Nobody
	// was told that it is stored, and it may be or not. Any method returns
	// it from then on: what is on the disk is known when it is opened anew.
	ErrLost = errors.New("the journal could not be brought to the disk; see to the disk, then start again")
)

// checkHead looks at the first bytes of the file, before SQLite does: opening
// a database that is not ours would change it.
func checkHead(path string) error {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%w: it is no regular file", ErrForeign)
	}
	// 0o600: bodies and answers are nobody else's business.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	var head [100]byte
	n, err := io.ReadFull(f, head[:])
	switch {
	case errors.Is(err, io.EOF):
		return nil // new, or a crash came before its first transaction
	case err != nil && !errors.Is(err, io.ErrUnexpectedEOF):
		return err
	case n < len(head) || !strings.HasPrefix(string(head[:]), "SQLite format 3\x00"):
		return fmt.Errorf("%w: it is not a SQLite database", ErrForeign)
	}
	if id := binary.BigEndian.Uint32(head[68:]); id != applicationID {
		return fmt.Errorf("%w: it is a SQLite database with application id %#x", ErrForeign, id)
	}
	if v := binary.BigEndian.Uint32(head[60:]); v > schemaVersion {
		return newer(int(v))
	}
	return nil
}

// noSpace reports whether err says that the disk is full.
func noSpace(err error) bool {
	if errors.Is(err, queue.ErrFull) || fullDisk(err) {
		return true
	}
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && e.Code()&0xff == sqlitelib.SQLITE_FULL
}

// ioError reports whether SQLite met an error of the operating system. It does
// not say which: on a full disk some of its calls fail this way.
func ioError(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && e.Code()&0xff == sqlitelib.SQLITE_IOERR
}

// failed gives err the meaning that callers look for.
func (s *Store) failed(err error) error {
	if err == nil {
		return nil
	}
	if noSpace(err) {
		return fullError{s.path, err}
	}
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch e.Code() & 0xff {
		case sqlitelib.SQLITE_CORRUPT, sqlitelib.SQLITE_NOTADB:
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		case sqlitelib.SQLITE_READONLY, sqlitelib.SQLITE_PERM, sqlitelib.SQLITE_CANTOPEN:
			return fmt.Errorf("%w: %w", fs.ErrPermission, err)
		}
	}
	return err
}

// fullError is [queue.ErrFull] with the place and the cause.
type fullError struct {
	path  string
	cause error
}

func (e fullError) Error() string {
	if e.cause == nil || errors.Is(e.cause, queue.ErrFull) {
		return fmt.Sprintf("%v at %s", queue.ErrFull, e.path)
	}
	return fmt.Sprintf("%v at %s: %v", queue.ErrFull, e.path, e.cause)
}

func (e fullError) Is(target error) bool { return target == queue.ErrFull }
func (e fullError) Unwrap() error        { return e.cause }
