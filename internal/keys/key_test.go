package keys

import (
	"errors"
	"regexp"
	"strings"
	"testing"
)

func TestNew(t *testing.T) {
	form := regexp.MustCompile(`^hg_[a-z2-7]{56}$`)
	seen := map[string]bool{}
	for range 1000 {
		key, hash := New()
		if !form.MatchString(key) || seen[key] || Check(key) != nil || !hash.Matches(key) {
			t.Fatalf("%q, %v", key, Check(key))
		}
		seen[key] = true
	}
}

func TestCheck(t *testing.T) {
	key, _ := New()
	flipped := func(i int) string {
		b := []byte(key)
		b[i] = map[bool]byte{true: 'b', false: 'a'}[b[i] == 'a']
		return string(b)
	}
	for _, c := range []struct {
		key  string
		want error
	}{
		{key, nil},
		{"", ErrNotKey},
		{"sha256:00", ErrNotKey},
		{key[1:], ErrNotKey},
		{key[:len(key)-1], ErrIncomplete},
		{key[:10], ErrIncomplete},
		{key + "a", ErrIncomplete},
		{key + "\n", ErrIncomplete},
		{flipped(3), ErrMistyped},
		{flipped(30), ErrMistyped},
		{flipped(len(key) - 1), ErrMistyped},
		{strings.ToUpper(key), ErrNotKey},
		{key[:20] + "!" + key[21:], ErrMistyped},
		{key[:20] + "\n" + key[21:], ErrMistyped},
		{keyPrefix + strings.Repeat("\n", 56), ErrMistyped},
	} {
		if err := Check(c.key); err != c.want {
			t.Errorf("Check(%q) = %v, want %v", c.key, err, c.want)
		}
	}
}

func TestHash(t *testing.T) {
	key, hash := New()
	if parsed, err := ParseHash(hash.String()); err != nil || parsed != hash {
		t.Errorf("%v read again: %v, %v", hash, parsed, err)
	}
	if other, _ := New(); hash.Matches(other) || hash.Matches(key+" ") || hash.Matches("") {
		t.Error("another key matches")
	}
	if (Hash{}).Matches("") || !(Hash{}).IsZero() || hash.IsZero() {
		t.Error("the zero value")
	}
	if fp := hash.Fingerprint(); len(fp) != 16 || strings.Contains(key, fp) {
		t.Errorf("the fingerprint is %q", fp)
	}
	for _, text := range []string{
		"", "sha256:", key, hash.String()[1:], hash.String() + "0", hash.String()[:70],
		"sha1:" + hash.String()[7:], "sha256:" + strings.Repeat("0", 64), "sha256:" + strings.Repeat("g", 64),
	} {
		if h, err := ParseHash(text); !errors.Is(err, ErrHash) || !h.IsZero() || strings.Contains(err.Error(), "hg_") {
			t.Errorf("ParseHash(%q) = %v, %v", text, h, err)
		}
	}
}

func FuzzCheck(f *testing.F) {
	f.Add("hg_", []byte("0123456789abcdef0123456789abcdef"))
	f.Add("", []byte{})
	f.Fuzz(func(t *testing.T, text string, random []byte) {
		if err := Check(text); err == nil && len(text) != keyLength {
			t.Fatalf("%q is a key", text)
		}
		if len(random) != keyRandom {
			return
		}
		key := keyPrefix + keyEncoding.EncodeToString(append(random[:keyRandom:keyRandom], checksum(random)...))
		if err := Check(key); err != nil {
			t.Fatalf("%q: %v", key, err)
		}
		if err := Check(key[:len(key)-1]); err != ErrIncomplete {
			t.Fatalf("%q cut: %v", key, err)
		}
	})
}
