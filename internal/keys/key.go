// Package keys makes and checks what lets somebody in: the keys of callers and
// operators, which the gateway's file holds as hashes, and the gateway's own
// tokens, which it hands out for a key and recognises without storing them.
package keys

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"strings"
)

// A key is "hg_" and 56 characters: 32 random bytes and 3 of their checksum. It
// is one word to whoever selects it with a double click, and nothing in it is
// changed by a URL, a form or a shell.
const (
	keyPrefix   = "hg_"
	keyRandom   = 32
	keyChecksum = 3
	keyLength   = len(keyPrefix) + (keyRandom+keyChecksum)*8/5
)

var keyEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// What [Check] finds wrong.
var (
	// ErrNotKey is not a key of ours at all.
	ErrNotKey = errors.New("not a key: one begins with " + keyPrefix)
	// ErrIncomplete is a key of which a part is missing, or with something
	// behind it.
	ErrIncomplete = errors.New("not a whole key: one has 59 characters")
	// ErrMistyped is a key in which a character is wrong.
	ErrMistyped = errors.New("not a key as it was made: a character of it is wrong")
)

// New makes a key from 256 random bits, and the hash by which it is recognised.
// The key is shown once and stored nowhere.
func New() (key string, hash Hash) {
	raw := make([]byte, keyRandom, keyRandom+keyChecksum)
	rand.Read(raw) // never fails
	raw = append(raw, checksum(raw)...)
	key = keyPrefix + keyEncoding.EncodeToString(raw)
	return key, HashOf(key)
}

// checksum shows that a key was cut or mistyped. It guards nothing.
func checksum(random []byte) []byte {
	sum := sha256.Sum256(append([]byte("headgate key checksum\x00"), random...))
	return sum[:keyChecksum]
}

// Check says what is wrong with the form of a key: [ErrNotKey], [ErrIncomplete],
// [ErrMistyped] or nil. Whether it opens anything is for [Hash.Matches] to say.
func Check(key string) error {
	switch {
	case !strings.HasPrefix(key, keyPrefix):
		return ErrNotKey
	case len(key) != keyLength:
		return ErrIncomplete
	}
	raw, err := keyEncoding.DecodeString(key[len(keyPrefix):])
	if err != nil || len(raw) != keyRandom+keyChecksum || subtle.ConstantTimeCompare(raw[keyRandom:], checksum(raw[:keyRandom])) != 1 {
		return ErrMistyped
	}
	return nil
}

// Hash is the SHA-256 of a key. That is all it takes: a slow hash protects words
// that people choose, and no number of guesses finds one of 2^256. The zero
// value is no hash, and no key matches it.
type Hash [sha256.Size]byte

const hashPrefix = "sha256:"

// HashOf returns the hash of a key.
func HashOf(key string) Hash { return sha256.Sum256([]byte(key)) }

// ErrHash is what [ParseHash] says of whatever is no hash. It does not repeat
// what was given, which may be a key.
var ErrHash = errors.New(hashPrefix + " and 64 hexadecimal digits, as headgate key new prints it")

// ParseHash reads "sha256:" and 64 hexadecimal digits. The error is [ErrHash].
func ParseHash(text string) (h Hash, err error) {
	digits, ok := strings.CutPrefix(text, hashPrefix)
	if !ok || len(digits) != hex.EncodedLen(len(h)) {
		return Hash{}, ErrHash
	}
	if _, err := hex.Decode(h[:], []byte(digits)); err != nil || h.IsZero() {
		return Hash{}, ErrHash
	}
	return h, nil
}

// String writes what [ParseHash] reads.
func (h Hash) String() string { return hashPrefix + hex.EncodeToString(h[:]) }

// IsZero reports whether h is no hash.
func (h Hash) IsZero() bool { return h == Hash{} }

// Matches reports whether h is the hash of key, in a time that depends on the
// length of key alone.
func (h Hash) Matches(key string) bool {
	sum := HashOf(key)
	return subtle.ConstantTimeCompare(h[:], sum[:]) == 1
}

// Fingerprint is a short name for the key behind h: enough to tell it from the
// one before it, too little to recognise a key by.
func (h Hash) Fingerprint() string { return hex.EncodeToString(h[:8]) }
