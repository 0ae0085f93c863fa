package keys

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash"
	"strings"
	"sync"
	"time"
)

// A token is "hgt1_" and, in base64url, one byte that says what it is for, the
// second at which it expires (8 bytes), the three claims, each after its length
// (a varint), and an HMAC-SHA256 of all that.
const (
	tokenPrefix = "hgt1_"
	tokenHead   = 1 + 8
	tokenMAC    = sha256.Size
	// maxToken is longer than what fits a header field that anybody sends.
	maxToken = 4096
)

var tokenEncoding = base64.RawURLEncoding.Strict()

// Purpose says what a token is for. One that is for something else is as good as
// none.
type Purpose byte

const (
	// ForCalls is a token of /oauth/token, which a caller's calls bring.
	ForCalls Purpose = 1
	// ForPage is the session of an operator in a browser.
	ForPage Purpose = 2
)

// Claims are what a token says. They are readable for whoever has it, and can't
// be changed. Together they have at most 2,500 bytes; a token with more is not
// recognised.
type Claims struct {
	// Org and Caller say who it is.
	Org, Caller string
	// Key is the fingerprint of the key for which the token was made: see
	// [Hash.Fingerprint]. Whoever checks a token compares it, so that with a
	// key go its tokens.
	Key string
	// Expires is when it ends, in whole seconds. [Issuer.Issue] sets it.
	Expires time.Time
}

// What is wrong with a token.
var (
	// ErrMalformed is not a token of ours, or not a whole one.
	ErrMalformed = errors.New("not a token of this gateway")
	// ErrForged is a token that another secret made, or that was changed.
	ErrForged = errors.New("the token was not made here, or was changed")
	// ErrPurpose is a token for something else.
	ErrPurpose = errors.New("the token is for something else")
	// ErrExpired is a token whose time is over.
	ErrExpired = errors.New("the token has expired")
)

// Issuer makes tokens and recognises its own. It is safe for concurrent use.
type Issuer struct{ signers sync.Pool }

// signer is a MAC with its key worked in, and room to read a token. It is used
// again: a token comes with every call.
type signer struct {
	mac hash.Hash
	raw [512]byte
	sum [tokenMAC]byte
}

// NewIssuer returns an issuer with a secret. Those with the same secret know each
// other's tokens.
func NewIssuer(s Secret) *Issuer {
	key := s.bytes()
	return &Issuer{sync.Pool{New: func() any { return &signer{mac: hmac.New(sha256.New, key[:])} }}}
}

// IsToken reports whether s looks like a token of a gateway's, and not like a key
// or like somebody else's token.
func IsToken(s string) bool { return strings.HasPrefix(s, tokenPrefix) }

// Issue makes a token that is good from now for life, rounded up to whole seconds.
func (i *Issuer) Issue(c Claims, p Purpose, now time.Time, life time.Duration) string {
	raw := make([]byte, 0, tokenHead+3*binary.MaxVarintLen16+len(c.Org)+len(c.Caller)+len(c.Key)+tokenMAC)
	raw = append(raw, byte(p))
	raw = binary.BigEndian.AppendUint64(raw, uint64(now.Add(life+time.Second-1).Unix()))
	for _, s := range [...]string{c.Org, c.Caller, c.Key} {
		raw = binary.AppendUvarint(raw, uint64(len(s)))
		raw = append(raw, s...)
	}
	sign := i.signers.Get().(*signer)
	defer i.signers.Put(sign)
	raw = append(raw, sign.of(raw)...)
	return tokenPrefix + tokenEncoding.EncodeToString(raw)
}

// Verify returns what a token says if it was made with this secret for that
// purpose and has not expired. Else the error is [ErrMalformed], [ErrForged],
// [ErrPurpose] or [ErrExpired]; claims come with the last one alone.
func (i *Issuer) Verify(token string, p Purpose, now time.Time) (Claims, error) {
	// Lines may break anywhere for the decoder; there is one way to write a
	// token.
	if !IsToken(token) || len(token) > maxToken || strings.ContainsAny(token, "\r\n") {
		return Claims{}, ErrMalformed
	}
	sign := i.signers.Get().(*signer)
	defer i.signers.Put(sign)
	raw, err := tokenEncoding.AppendDecode(sign.raw[:0], []byte(token[len(tokenPrefix):]))
	if err != nil || len(raw) < tokenHead+tokenMAC {
		return Claims{}, ErrMalformed
	}
	said, mac := raw[:len(raw)-tokenMAC], raw[len(raw)-tokenMAC:]
	if !hmac.Equal(mac, sign.of(said)) {
		return Claims{}, ErrForged
	}
	return read(said, p, now)
}

// read reads what was signed.
func read(said []byte, p Purpose, now time.Time) (c Claims, err error) {
	if Purpose(said[0]) != p {
		return c, ErrPurpose
	}
	c.Expires = time.Unix(int64(binary.BigEndian.Uint64(said[1:tokenHead])), 0)
	rest := string(said[tokenHead:]) // once, for all three
	for _, into := range [...]*string{&c.Org, &c.Caller, &c.Key} {
		n, width := binary.Uvarint(said[len(said)-len(rest):])
		if width <= 0 || n > uint64(len(rest)-width) {
			return Claims{}, ErrMalformed
		}
		*into, rest = rest[width:width+int(n)], rest[width+int(n):]
	}
	switch {
	case rest != "":
		return Claims{}, ErrMalformed
	case !now.Before(c.Expires):
		return c, ErrExpired
	}
	return c, nil
}

// of returns the MAC of said. It is there until the next one.
func (s *signer) of(said []byte) []byte {
	s.mac.Reset()
	s.mac.Write(said)
	return s.mac.Sum(s.sum[:0])
}
