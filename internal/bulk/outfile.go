package bulk

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// OutFile is a file that is there whole or not at all: it is written beside
// its target and takes its place on Commit. Until then, and if anything
// fails, what stood there before stays unharmed.
//
// A target that is there and no regular file (a device, a pipe, a terminal)
// can't be replaced; it is written directly. A symbolic link stays one, and
// the file it leads to is replaced. The new file has the permissions of the
// old one, but not its owner or its other hard links.
type OutFile struct {
	target string // behind symbolic links
	file   *os.File
	direct bool
	done   bool
}

// CreateOut begins to write the file at path. It fails now rather than on
// Commit if nothing can be written there.
func CreateOut(path string) (*OutFile, error) {
	old, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	target, special, err := follow(path)
	if err != nil {
		return nil, err
	}
	switch {
	case old != nil && old.IsDir():
		return nil, &os.PathError{Op: "open", Path: path, Err: errors.New("is a directory")}
	case old != nil && (special || !old.Mode().IsRegular()):
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return nil, err
		}
		return &OutFile{target: path, file: f, direct: true}, nil
	}
	dir, base := filepath.Split(target)
	name := filepath.Join(dir, "."+base+"."+rand.Text()[:10]+".tmp")
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, fmt.Errorf("creating a temporary file beside %s: %w", path, err)
	}
	o := &OutFile{target: target, file: f}
	if old != nil {
		if err := f.Chmod(old.Mode().Perm()); err != nil {
			o.Abort()
			return nil, err
		}
	}
	return o, nil
}

// follow returns the file that path leads to, whether it exists or not, and
// whether the way there leads through /dev or /proc: /dev/stdout names an
// open file, not a path.
func follow(path string) (target string, special bool, err error) {
	for range 40 {
		if abs, err := filepath.Abs(path); err == nil {
			special = special || strings.HasPrefix(abs, "/dev/") || strings.HasPrefix(abs, "/proc/")
		}
		next, err := os.Readlink(path)
		if err != nil || special { // no link, or nothing there
			return path, special, nil
		}
		if !filepath.IsAbs(next) {
			next = filepath.Join(filepath.Dir(path), next)
		}
		path = next
	}
	return "", false, &os.PathError{Op: "open", Path: path, Err: errors.New("too many symbolic links")}
}

// Write implements io.Writer.
func (o *OutFile) Write(p []byte) (int, error) { return o.file.Write(p) }

// Commit puts the file in its place. When it returns nil, the file is on
// disk under its name. When it does not, the old file is still there, or the
// new one is and may be gone again after a crash of the machine; never a part
// of one.
func (o *OutFile) Commit() error {
	if o.done {
		return os.ErrClosed
	}
	if o.direct {
		o.done = true
		return o.file.Close()
	}
	if err := o.file.Sync(); err != nil {
		o.Abort()
		return err
	}
	o.done = true
	err := o.file.Close()
	if err == nil {
		err = os.Rename(o.file.Name(), o.target)
	}
	if err != nil {
		_ = os.Remove(o.file.Name()) // err is the one to tell
		return err
	}
	return syncDir(filepath.Dir(o.target))
}

// Abort drops what was written. After Commit it does nothing, so it may be
// deferred.
func (o *OutFile) Abort() {
	if o.done {
		return
	}
	o.done = true
	_ = o.file.Close() // nothing of it is wanted
	if !o.direct {
		_ = os.Remove(o.file.Name())
	}
}

// syncDir makes a rename in dir last.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" { // can't sync a directory, need not
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}
