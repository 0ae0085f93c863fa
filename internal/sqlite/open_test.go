package sqlite

import (
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/headgate/headgate/internal/queue"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustOpen(t testing.TB, path string, opt Options) *Store {
	t.Helper()
	s, err := Open(path, opt)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	database := func(name string, statements ...string) string {
		path := filepath.Join(dir, name)
		db, err := sql.Open("sqlite", "file:"+path)
		must(t, err)
		for _, s := range statements {
			_, err := db.Exec(s)
			must(t, err)
		}
		must(t, db.Close())
		return path
	}
	journal := func(name string) string {
		path := filepath.Join(dir, name)
		s := mustOpen(t, path, small)
		must(t, s.Add(t.Context(), make([]queue.Execution, 500)))
		must(t, s.Close())
		return path
	}
	newer := journal("newer")
	database("newer", "PRAGMA user_version=3")
	damaged := journal("damaged")
	data, err := os.ReadFile(damaged)
	must(t, err)
	must(t, os.WriteFile(damaged, append(data[:100:100], make([]byte, len(data)-100)...), 0o600))
	cut := journal("cut")
	must(t, os.Truncate(cut, 5000))

	for _, c := range []struct {
		name, path string
		want       error
		says       string
	}{
		{"text", write("text", strings.Repeat("flowId,name\n", 50)), ErrForeign, "not a SQLite database"},
		{"a few bytes", write("short", "{}"), ErrForeign, "not a SQLite database"},
		{"a SQLite database", database("other", "CREATE TABLE t (a)"), ErrForeign, "SQLite database"},
		{"another program's", database("app", "PRAGMA application_id=7", "CREATE TABLE t (a)"), ErrForeign, "0x7"},
		{"from a newer version", newer, ErrNewer, "version 3"},
		{"damaged", damaged, ErrDamaged, "damaged"},
		{"cut off", cut, ErrDamaged, "damaged"},
		{"a folder", dir, ErrForeign, "no regular file"},
		{"in no folder", filepath.Join(dir, "none", "journal"), fs.ErrNotExist, "none"},
		{"nowhere", "", nil, "empty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, _ := os.ReadFile(c.path)
			s, err := Open(c.path, small)
			if err == nil {
				s.Close()
				t.Fatal("Open succeeded")
			}
			if c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("Open: got %v, want %v", err, c.want)
			}
			if !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), c.path) {
				t.Errorf("Open says %q, want the path and %q", err, c.says)
			}
			if after, _ := os.ReadFile(c.path); string(after) != string(before) {
				t.Error("the file was changed")
			}
			if c.want == ErrForeign {
				if _, err := os.Stat(c.path + ".lock"); err == nil {
					t.Error("a lock file was left beside a file that is not ours")
				}
			}
			// Refused again for the same reason: nothing is still held.
			if _, again := Open(c.path, small); again == nil || errors.Is(again, ErrLocked) {
				t.Errorf("Open again: %v", again)
			}
		})
	}
}

func TestOpenUnreadable(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may read everything")
	}
	for _, mode := range []os.FileMode{0, 0o400, 0o200} {
		path := filepath.Join(t.TempDir(), "journal")
		must(t, mustOpen(t, path, small).Close())
		must(t, os.Chmod(path, mode))
		if _, err := Open(path, small); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("mode %o: got %v, want %v", mode, err, fs.ErrPermission)
		}
	}
}

// What a crash leaves before the first transaction is a journal to be.
func TestOpenEmpty(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	must(t, os.WriteFile(path, nil, 0o600))
	s := mustOpen(t, path, small)
	must(t, s.Add(t.Context(), make([]queue.Execution, 1)))
}

// No path is mistaken for a parameter, and the bodies are nobody's business.
func TestOpenPaths(t *testing.T) {
	for _, name := range []string{"a b", "q?mode=memory", "h#sh", "%41", "ünï", "a&b=c", ":memory:", "-x", "a;b'c\"d"} {
		path := filepath.Join(t.TempDir(), name)
		s := mustOpen(t, path, small)
		must(t, s.Add(t.Context(), make([]queue.Execution, 3)))
		must(t, s.Close())
		info, err := os.Stat(path)
		if err != nil || info.Size() == 0 {
			t.Errorf("%q: the journal is not where it should be: %v", name, err)
			continue
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%q: others may read it: %v", name, info.Mode())
		}
		s = mustOpen(t, path, small)
		if c, err := s.Counts(t.Context()); err != nil || c.Total() != 3 {
			t.Errorf("%q: holds %v, %v", name, c, err)
		}
	}
}

func TestOpenLocked(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "journal")
	s := mustOpen(t, path, small)
	link := filepath.Join(dir, "link")
	must(t, os.Symlink(path, link))
	for _, p := range []string{path, link} {
		if _, err := Open(p, small); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), p) {
			t.Errorf("second Open: got %v, want %v", err, ErrLocked)
		}
	}
	// The refusals did the first one no harm.
	must(t, s.Add(t.Context(), make([]queue.Execution, 1)))
	must(t, s.Close())
	must(t, mustOpen(t, link, small).Close())
}

// The reserve is there while the journal is open, in full, and then gone.
func TestReserve(t *testing.T) {
	for _, c := range []struct{ option, want int64 }{{0, 4 << 20}, {100_000, 100_000}, {-1, -1}} {
		path := filepath.Join(t.TempDir(), "journal")
		s := mustOpen(t, path, Options{Reserve: c.option})
		got := int64(-1)
		if info, err := os.Stat(path + ".reserve"); err == nil {
			got = info.Size()
			if n := allocated(info); n >= 0 && n < got {
				t.Errorf("Reserve %d: only %d bytes are taken up", c.option, n)
			}
		}
		if got != c.want {
			t.Errorf("Reserve %d: the reserve has %d bytes, want %d", c.option, got, c.want)
		}
		must(t, s.Close())
		if _, err := os.Stat(path + ".reserve"); err == nil {
			t.Errorf("Reserve %d: left behind", c.option)
		}
	}
}
