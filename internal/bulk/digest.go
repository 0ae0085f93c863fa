package bulk

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
)

// Digest reads from another reader and tells afterwards what it was that
// was read, to notice that an input changed since its journal was begun.
type Digest struct {
	r    io.Reader
	hash hash.Hash
	size int64
}

// Fingerprint identifies the content of an input. Equal content has an equal
// Fingerprint, so they compare with ==.
type Fingerprint struct {
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
}

// NewDigest returns a Digest that reads from r.
func NewDigest(r io.Reader) *Digest { return &Digest{r: r, hash: sha256.New()} }

// Read implements io.Reader.
func (d *Digest) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	if n > 0 {
		d.hash.Write(p[:n])
		d.size += int64(n)
	}
	return n, err
}

// Fingerprint returns the fingerprint of what was read so far. It is the
// whole input's once Read has returned io.EOF, as it has when [Read] came to
// the end of its rows.
func (d *Digest) Fingerprint() Fingerprint {
	return Fingerprint{SHA256: hex.EncodeToString(d.hash.Sum(nil)), Size: d.size}
}
