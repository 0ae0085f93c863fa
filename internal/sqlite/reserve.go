package sqlite

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
)

// reserve is a file that only takes up room. When the disk is full it is
// removed, and what is in flight can be recorded in its place. The writer owns
// it once the store is open.
type reserve struct {
	path    string
	size    int64
	held    bool
	instead func() error // for tests: called in place of making it
}

// make writes the file, for real: a hole takes up no room, and neither do
// zeros on a file system that compresses. Without room it leaves nothing.
func (r *reserve) make() (err error) {
	if r.size < 0 || r.held {
		return nil
	}
	if r.instead != nil {
		if err := r.instead(); err != nil {
			return err
		}
		r.held = true
		return nil
	}
	f, err := os.OpenFile(r.path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("holding back room on the disk: %w", err)
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			os.Remove(r.path)
			err = fmt.Errorf("holding back room on the disk: %w", err)
		}
	}()
	noise := rand.NewChaCha8([32]byte{})
	chunk := make([]byte, 64<<10)
	for left := r.size; left > 0; left -= int64(len(chunk)) {
		chunk = chunk[:min(int64(len(chunk)), left)]
		noise.Read(chunk)
		if _, err := f.Write(chunk); err != nil {
			return err
		}
	}
	// Some file systems find their room only when they must.
	if err := f.Sync(); err != nil {
		return err
	}
	r.held = true
	return nil
}

// drop gives the room back.
func (r *reserve) drop() error {
	r.held = false
	if err := os.Remove(r.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
