package keys

import (
	"crypto/subtle"
	"fmt"
)

// Entry is somebody who has a key.
type Entry struct {
	// ID is what a [Ring] answers with. Unique, not empty.
	ID string
	// Name is what the one with the key calls itself. Several may have the
	// same name, in different orgs.
	Name string
	// Hash is that of the key. Unique, because a key alone says who it is.
	Hash Hash
}

// Ring finds out whose a key is. It is never changed, and safe for concurrent
// use. The zero value holds nobody.
//
// Every wrong key costs the same, whatever name comes with it: one hash, one
// look-up by that hash and one comparison, with an entry or in place of one.
// Time can't tell a name that exists from one that does not. A look-up by hash
// is no way in: to learn from its time, one would have to find keys with chosen
// hashes, and would learn a hash.
type Ring struct {
	byHash map[Hash]Entry

	compare func(a, b []byte) int // nil is subtle.ConstantTimeCompare
}

// NewRing makes a ring. It is an error if an id or a key is there twice, or a
// hash or an id is missing.
func NewRing(entries []Entry) (*Ring, error) {
	r := &Ring{byHash: make(map[Hash]Entry, len(entries))}
	ids := make(map[string]bool, len(entries))
	for _, e := range entries {
		other, twice := r.byHash[e.Hash]
		switch {
		case e.ID == "":
			return nil, fmt.Errorf("%q has no id", e.Name)
		case e.Hash.IsZero():
			return nil, fmt.Errorf("%s has no key", e.ID)
		case ids[e.ID]:
			return nil, fmt.Errorf("%s is there twice", e.ID)
		case twice:
			return nil, fmt.Errorf("%s and %s have the same key", other.ID, e.ID)
		}
		ids[e.ID], r.byHash[e.Hash] = true, e
	}
	return r, nil
}

// ByKey returns the id of the one whose key it is.
func (r *Ring) ByKey(key string) (id string, ok bool) {
	e, ok := r.find(key)
	return e.ID, ok
}

// ByNameAndKey returns the id of the one whose key it is, if name is its name or
// its id.
func (r *Ring) ByNameAndKey(name, key string) (id string, ok bool) {
	e, ok := r.find(key)
	if !ok || name != e.Name && name != e.ID {
		return "", false
	}
	return e.ID, true
}

func (r *Ring) find(key string) (Entry, bool) {
	sum := HashOf(key)
	e := r.byHash[sum] // without an entry, the zero hash is what is compared
	compare := r.compare
	if compare == nil {
		compare = subtle.ConstantTimeCompare
	}
	if compare(sum[:], e.Hash[:]) != 1 {
		return Entry{}, false
	}
	return e, true
}
