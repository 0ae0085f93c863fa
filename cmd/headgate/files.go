package main

import (
	"cmp"
	"io"
	"os"
	"path/filepath"
)

// journalFiles are what a journal consists of, by what follows its name:
// package sqlite.
var journalFiles = [...]string{"", "-wal", "-shm", ".lock", ".reserve"}

// namedFile is a file that the user named, or that stands beside one.
type namedFile struct {
	role string
	path string      // absolute, behind links; "" for an open file
	info os.FileInfo // nil if there is none yet
}

func fileAt(role, path string) namedFile {
	f := namedFile{role: role, path: behindLinks(path)}
	f.info, _ = os.Stat(f.path) // without one, the path has to do
	return f
}

// openFile returns what is known of an open file; ok is false if it is none.
func openFile(role string, stream any) (f namedFile, ok bool) {
	file, ok := stream.(*os.File)
	if !ok {
		return f, false
	}
	info, err := file.Stat()
	return namedFile{role: role, info: info}, err == nil
}

// same reports whether writing the one would harm the other. Devices and pipes
// come to no harm.
func (f namedFile) same(g namedFile) bool {
	if f.info != nil && g.info != nil {
		return f.info.Mode().IsRegular() && os.SameFile(f.info, g.info)
	}
	return f.path != "" && f.path == g.path
}

// behindLinks returns where path leads to, whether there is something or not.
func behindLinks(path string) string {
	for range 40 {
		abs, err := filepath.Abs(path)
		if err != nil {
			return path
		}
		if real, err := filepath.EvalSymlinks(abs); err == nil {
			return real
		}
		next, err := os.Readlink(abs)
		if err != nil { // no link: nothing is there
			if dir, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
				return filepath.Join(dir, filepath.Base(abs))
			}
			return abs
		}
		if path = next; !filepath.IsAbs(next) {
			path = filepath.Join(filepath.Dir(abs), next)
		}
	}
	return path
}

// apart refuses files of one run that would overwrite each other. journal is
// "" if it is a new one of our own, learned if there is none.
func (f *runFlags) apart(stdin io.Reader, stdout io.Writer, journal, learned string) error {
	var read, written []namedFile
	if f.input != "-" {
		read = append(read, fileAt("the input", f.input))
	} else if in, ok := openFile("the input", stdin); ok {
		read = append(read, in)
	}
	if f.config != "" {
		read = append(read, fileAt("--config", f.config))
	}
	if journal != "" {
		for _, suffix := range journalFiles {
			role := "the journal"
			if suffix != "" {
				role += "'s " + suffix
			}
			written = append(written, fileAt(role, behindLinks(journal)+suffix))
		}
	}
	if f.out != "" && f.out != "-" {
		written = append(written, fileAt("--out", f.out))
	} else if out, ok := openFile("standard output", stdout); ok {
		written = append(written, out)
	}
	if learned != "" {
		written = append(written, fileAt("--learned", learned))
	}
	for i, w := range written {
		for _, other := range read {
			if w.same(other) {
				return sameFile(other, w)
			}
		}
		for _, other := range written[:i] {
			if w.same(other) {
				return sameFile(other, w)
			}
		}
	}
	return nil
}

func sameFile(f, g namedFile) error {
	path := cmp.Or(f.path, g.path, "redirected")
	return usage("%s and %s are the same file (%s): choose another for one of them; nothing was sent or changed", f.role, g.role, path)
}
