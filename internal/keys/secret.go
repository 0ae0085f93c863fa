package keys

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// secretLength is how many bytes a secret has.
const secretLength = 32

// Secret is what an [Issuer] signs with. It shows itself as [redacted]. The zero
// value is the secret of zeros: good for nothing.
type Secret struct {
	// A function, because nothing that walks through fields prints what one
	// closes over.
	reveal func() [secretLength]byte
}

func secretOf(b [secretLength]byte) Secret { return Secret{func() [secretLength]byte { return b }} }

// NewSecret makes a secret at random, that ends with the process.
func NewSecret() Secret {
	var b [secretLength]byte
	rand.Read(b[:]) // never fails
	return secretOf(b)
}

func (s Secret) bytes() (b [secretLength]byte) {
	if s.reveal == nil {
		return b
	}
	return s.reveal()
}

// Format writes [redacted], for every verb.
func (Secret) Format(f fmt.State, _ rune) { io.WriteString(f, "[redacted]") }

// MarshalText writes [redacted].
func (Secret) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

// LoadSecret reads the secret of a file, which holds its 32 bytes and nothing
// else. If there is no file, it is made, with a new secret, for its owner alone,
// and so is its folder. Of several processes that do so at once one makes it,
// and all return the same. It is an error if others than its owner can read it.
func LoadSecret(path string) (Secret, error) {
	s, err := readSecret(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = createSecret(path); err == nil {
			s, err = readSecret(path)
		}
	}
	if err != nil {
		return Secret{}, fmt.Errorf("the gateway's secret: %w", err)
	}
	return s, nil
}

func readSecret(path string) (Secret, error) {
	f, err := os.Open(path)
	if err != nil {
		return Secret{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return Secret{}, err
	case !info.Mode().IsRegular():
		return Secret{}, fmt.Errorf("%s is not a file", path)
	case info.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows": // whose permissions are elsewhere
		return Secret{}, fmt.Errorf("%s can be read or changed by others (%v): chmod 600, or remove it, which ends all sessions", path, info.Mode().Perm())
	case info.Size() != secretLength:
		return Secret{}, fmt.Errorf("%s has %d bytes, a secret has %d: remove it, which ends all sessions", path, info.Size(), secretLength)
	}
	var b [secretLength]byte
	if _, err := io.ReadFull(f, b[:]); err != nil {
		return Secret{}, fmt.Errorf("reading %s: %w", path, err)
	}
	return secretOf(b), nil
}

// createSecret makes the file, whole or not at all. That another process was
// faster is no error.
func createSecret(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, filepath.Base(path)+".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	b := NewSecret().bytes()
	_, err = f.Write(b[:])
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	// A link, because a rename would take the place of what is there.
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncFolder(dir)
}

// syncFolder makes a new name in a folder last. Where folders can't be synced
// there is nothing to do.
func syncFolder(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
