package keys

import (
	"crypto/subtle"
	"strings"
	"testing"
)

// entry makes an entry with a key that is no key of ours: a ring takes any.
func entry(id, name, key string) Entry { return Entry{ID: id, Name: name, Hash: HashOf(key)} }

func testRing(t testing.TB) *Ring {
	r, err := NewRing([]Entry{entry("acme/crm", "crm", "k1"), entry("globex/crm", "crm", "k2"), entry("acme/export", "export", "k3")})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRing(t *testing.T) {
	r := testRing(t)
	for _, c := range []struct{ name, key, want string }{
		{"crm", "k1", "acme/crm"},
		{"crm", "k2", "globex/crm"}, // the same name in another org
		{"acme/crm", "k1", "acme/crm"},
		{"acme/crm", "k2", ""},
		{"crm", "k3", ""},
		{"export", "k3", "acme/export"},
		{"export", "k4", ""},
		{"nobody", "k1", ""},
		{"", "k1", ""},
		{"crm", "", ""},
	} {
		if id, ok := r.ByNameAndKey(c.name, c.key); id != c.want || ok != (c.want != "") {
			t.Errorf("ByNameAndKey(%q, %q) = %q, %v", c.name, c.key, id, ok)
		}
	}
	for key, want := range map[string]string{"k1": "acme/crm", "k2": "globex/crm", "k3": "acme/export", "k4": "", "": ""} {
		if id, ok := r.ByKey(key); id != want || ok != (want != "") {
			t.Errorf("ByKey(%q) = %q, %v", key, id, ok)
		}
	}
	var nobody Ring
	if id, ok := nobody.ByKey(""); ok || id != "" {
		t.Errorf("an empty ring knows %q", id)
	}
}

func TestRingRefuses(t *testing.T) {
	for what, entries := range map[string][]Entry{
		"same key":    {entry("a", "a", "k"), entry("b", "b", "k")},
		"there twice": {entry("a", "a", "k1"), entry("a", "b", "k2")},
		"no key":      {{ID: "a", Name: "a"}},
		"no id":       {entry("", "a", "k")},
	} {
		if _, err := NewRing(entries); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Every wrong key costs one comparison of the whole hash, whatever name is given.
func TestRingComparesOnce(t *testing.T) {
	r := testRing(t)
	compared, length := 0, 0
	r.compare = func(a, b []byte) int {
		compared++
		length += min(len(a), len(b))
		return subtle.ConstantTimeCompare(a, b)
	}
	for what, ask := range map[string]func(){
		"known name, wrong key":         func() { r.ByNameAndKey("crm", "k4") },
		"known name, key of another":    func() { r.ByNameAndKey("crm", "k3") },
		"unknown name, wrong key":       func() { r.ByNameAndKey("nobody", "k4") },
		"unknown name, key of somebody": func() { r.ByNameAndKey("nobody", "k1") },
		"no name, no key":               func() { r.ByNameAndKey("", "") },
		"right":                         func() { r.ByNameAndKey("crm", "k1") },
		"wrong key alone":               func() { r.ByKey("k4") },
		"right key alone":               func() { r.ByKey("k1") },
	} {
		compared, length = 0, 0
		if ask(); compared != 1 || length != len(Hash{}) {
			t.Errorf("%s: %d comparisons of %d bytes", what, compared, length)
		}
	}
}

func BenchmarkRing(b *testing.B) {
	r := testRing(b)
	for name, key := range map[string]string{"Right": "k1", "Wrong": "k4"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.ByNameAndKey("crm", key)
			}
		})
	}
}
