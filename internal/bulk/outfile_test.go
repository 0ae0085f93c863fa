package bulk

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// write commits text to path.
func write(t *testing.T, path, text string) {
	t.Helper()
	o, err := CreateOut(path)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Abort()
	if _, err := io.WriteString(o, text); err != nil {
		t.Fatal(err)
	}
	if err := o.Commit(); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// only checks that dir holds these names and no others.
func only(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if len(got) != len(names) {
		t.Errorf("the folder holds %q, want %q", got, names)
	}
}

func TestOutFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out.jsonl")
	o, err := CreateOut(path)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(o, "one\n")
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("before Commit the file is there: %v", err)
	}
	if err := o.Commit(); err != nil {
		t.Fatal(err)
	}
	o.Abort()
	if err := o.Commit(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the second Commit gives %v", err)
	}
	if got := content(t, path); got != "one\n" {
		t.Errorf("got %q", got)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}

	o, err = CreateOut(path)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(o, "half")
	o.Abort()
	o.Abort()
	if got := content(t, path); got != "one\n" {
		t.Errorf("after Abort the file is %q", got)
	}
	only(t, dir, "out.jsonl")

	write(t, path, "two\n")
	if got := content(t, path); got != "two\n" {
		t.Errorf("got %q", got)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the new file is %v, %v", info.Mode(), err)
	}
	only(t, dir, "out.jsonl")
}

func TestOutFileInWorkingDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "out", "x")
	if got := content(t, "out"); got != "x" {
		t.Errorf("got %q", got)
	}
	only(t, ".", "out")
}

func TestOutFileBehindLinks(t *testing.T) {
	dir := t.TempDir()
	real := filepath.Join(dir, "real")
	if err := os.Mkdir(real, 0o777); err != nil {
		t.Fatal(err)
	}
	link, second := filepath.Join(dir, "link"), filepath.Join(dir, "second")
	for name, to := range map[string]string{link: "real/out", second: link} {
		if err := os.Symlink(to, name); err != nil {
			t.Skip("no symbolic links here:", err)
		}
	}
	for _, text := range []string{"new", "again"} { // first it leads nowhere
		write(t, second, text)
		if got := content(t, filepath.Join(real, "out")); got != text {
			t.Errorf("got %q", got)
		}
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link became %v, %v", info.Mode(), err)
	}
	only(t, dir, "link", "real", "second")
	only(t, real, "out")

	loop := filepath.Join(dir, "loop")
	if err := os.Symlink("loop", loop); err != nil {
		t.Fatal(err)
	}
	if _, err := CreateOut(loop); err == nil {
		t.Error("a loop of links can be written")
	}
}

func TestOutFileOfOtherKinds(t *testing.T) {
	// What is to be written directly is only asked here: as root, a mistake
	// would replace the machine's own device. Pipes have a test of their own.
	for _, path := range []string{"/dev/null", "/dev/stdout", "/proc/self/fd/1"} {
		if _, special, err := follow(path); !special || err != nil {
			t.Errorf("%s would be replaced (%v)", path, err)
		}
	}

	dir := t.TempDir()
	if _, err := CreateOut(dir); err == nil || err.Error() != "open "+dir+": is a directory" {
		t.Errorf("a directory gives %v", err)
	}
	if _, err := CreateOut(filepath.Join(dir, "no", "out")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing directory gives %v", err)
	}
	only(t, dir)
}

func TestOutFileCommitFailing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out")
	o, err := CreateOut(path)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(o, "x")
	if err := os.Mkdir(path, 0o777); err != nil { // in the way of the rename
		t.Fatal(err)
	}
	if err := o.Commit(); err == nil {
		t.Error("Commit over a directory succeeds")
	}
	only(t, dir, "out")
}
