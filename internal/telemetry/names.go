package telemetry

import (
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"
	"unicode/utf8"
)

// other is the label of all names beyond the bound of their set.
const other = "other"

// none is the label of the empty name: to Prometheus, an empty label is none.
const none = "none"

// maxName is how many bytes of a name a label may have.
const maxName = 128

// names is a bounded set of names with something made for each: the first max
// that were seen, and one for all others. Looking one up costs a load and a map
// access.
type names[T any] struct {
	max  int
	make func(name string) T // called with mu held, once for each name

	known atomic.Pointer[map[string]T] // replaced, never changed
	mu    sync.Mutex                   // held while it is replaced
}

func newNames[T any](limit int, make func(string) T) *names[T] {
	n := &names[T]{max: limit, make: make}
	n.known.Store(&map[string]T{other: make(other)})
	return n
}

// get returns what was made for name, or for all others.
func (n *names[T]) get(name string) T {
	if name == "" {
		name = none
	}
	known := *n.known.Load()
	if v, ok := known[name]; ok {
		return v
	}
	if len(known) > n.max || !printable(name) {
		return known[other]
	}
	return n.add(name)
}

func (n *names[T]) add(name string) T {
	n.mu.Lock()
	defer n.mu.Unlock()
	known := *n.known.Load()
	if v, ok := known[name]; ok {
		return v
	}
	if len(known) > n.max {
		return known[other]
	}
	name = strings.Clone(name) // it may be a piece of something large
	v := n.make(name)
	more := maps.Clone(known)
	more[name] = v
	n.known.Store(&more)
	return v
}

// printable reports whether a name can be a label as it is.
func printable(name string) bool {
	if len(name) > maxName || !utf8.ValidString(name) {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) })
}

// label returns name as it can be a label, which must be UTF-8.
func label(name string) string {
	return strings.ToValidUTF8(name, "\uFFFD")
}
