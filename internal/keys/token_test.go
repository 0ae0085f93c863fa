package keys

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	testClaims = Claims{Org: "acme", Caller: "crm", Key: "0123456789abcdef"}
	testNow    = time.Date(2026, 3, 29, 1, 59, 59, 5e8, time.UTC)
)

func TestToken(t *testing.T) {
	i := NewIssuer(NewSecret())
	token := i.Issue(testClaims, ForCalls, testNow, time.Hour)
	if !regexp.MustCompile(`^hgt1_[A-Za-z0-9_-]+$`).MatchString(token) || !IsToken(token) {
		t.Errorf("%q", token)
	}
	c, err := i.Verify(token, ForCalls, testNow)
	// Good for an hour at least, and in whole seconds.
	if want := testNow.Add(time.Hour + 5e8); err != nil || !c.Expires.Equal(want) || c.Org != "acme" || c.Caller != "crm" || c.Key != testClaims.Key {
		t.Fatalf("%+v, %v", c, err)
	}
	if _, err := i.Verify(token, ForCalls, c.Expires.Add(-1)); err != nil {
		t.Errorf("in its last moment: %v", err)
	}
	if late, err := i.Verify(token, ForCalls, c.Expires); err != ErrExpired || late != c {
		t.Errorf("at its end: %+v, %v", late, err)
	}
	if c, err := i.Verify(token, ForPage, testNow); err != ErrPurpose || c != (Claims{}) {
		t.Errorf("for another purpose: %+v, %v", c, err)
	}
	if c, err := NewIssuer(NewSecret()).Verify(token, ForCalls, testNow); err != ErrForged || c != (Claims{}) {
		t.Errorf("with another secret: %+v, %v", c, err)
	}
	empty := i.Issue(Claims{}, ForPage, testNow, time.Second)
	if c, err := i.Verify(empty, ForPage, testNow); err != nil || c.Org+c.Caller+c.Key != "" {
		t.Errorf("without claims: %+v, %v", c, err)
	}
}

// The same claims in other places are another token: nothing moves from one to
// the other.
func TestTokenBindsPlaces(t *testing.T) {
	i := NewIssuer(NewSecret())
	seen := map[string]bool{}
	for _, c := range []Claims{{Org: "ab", Caller: "c"}, {Org: "a", Caller: "bc"}, {Caller: "abc"}, {Org: "abc"}, {Key: "abc"}} {
		token := i.Issue(c, ForCalls, testNow, time.Hour)
		got, err := i.Verify(token, ForCalls, testNow)
		got.Expires = time.Time{}
		if err != nil || got != c || seen[token] {
			t.Errorf("%+v: %+v, %v", c, got, err)
		}
		seen[token] = true
	}
}

func TestTokenChanged(t *testing.T) {
	i := NewIssuer(NewSecret())
	token := i.Issue(testClaims, ForCalls, testNow, time.Hour)
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for at := len(tokenPrefix); at < len(token); at++ {
		for bit := range 6 {
			changed := []byte(token)
			changed[at] = alphabet[strings.IndexByte(alphabet, token[at])^1<<bit]
			c, err := i.Verify(string(changed), ForCalls, testNow)
			if err != ErrForged && err != ErrMalformed || c != (Claims{}) {
				t.Fatalf("character %d, bit %d: %+v, %v", at, bit, c, err)
			}
		}
	}
	for _, text := range []string{
		"", "hgt1_", "hgt2_" + token[5:], token[5:], " " + token, token + "\n", token + "=", token + "A",
		token[:len(token)-1], token[:20], token[:30] + "\n" + token[30:], "hgt1_" + strings.Repeat("A", maxToken), "hg_" + strings.Repeat("a", 56),
	} {
		if c, err := i.Verify(text, ForCalls, testNow); err != ErrMalformed && err != ErrForged || c != (Claims{}) {
			t.Errorf("%q: %+v, %v", text, c, err)
		}
	}
}

// What was signed is read with care all the same: a secret may have signed
// something else.
func TestTokenSignedNonsense(t *testing.T) {
	i := NewIssuer(NewSecret())
	sign := i.signers.Get().(*signer)
	for _, said := range []string{
		"\x01\x00\x00\x00\x7f\x00\x00\x00\x00",                 // no claims
		"\x01\x00\x00\x00\x7f\x00\x00\x00\x00\x05a",            // shorter than it says
		"\x01\x00\x00\x00\x7f\x00\x00\x00\x00\x00\x00\x00more", // something behind
		"\x01\x00\x00\x00\x7f\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
	} {
		token := tokenPrefix + tokenEncoding.EncodeToString(append([]byte(said), sign.of([]byte(said))...))
		if c, err := i.Verify(token, ForCalls, testNow); err != ErrMalformed || c != (Claims{}) {
			t.Errorf("%q: %+v, %v", said, c, err)
		}
	}
}

// Both directions at once, for the race detector: MACs are used again.
func TestIssuerConcurrently(t *testing.T) {
	i := NewIssuer(NewSecret())
	var wait sync.WaitGroup
	for n := range 8 {
		wait.Go(func() {
			c := Claims{Org: fmt.Sprint(n), Caller: strings.Repeat("x", 100*n)}
			for range 200 {
				got, err := i.Verify(i.Issue(c, ForCalls, testNow, time.Hour), ForCalls, testNow)
				if err != nil || got.Org != c.Org || got.Caller != c.Caller {
					t.Errorf("%d: %+v, %v", n, got, err)
					return
				}
			}
		})
	}
	wait.Wait()
}

func FuzzVerify(f *testing.F) {
	i := NewIssuer(Secret{})
	f.Add(i.Issue(testClaims, ForCalls, testNow, time.Hour), "acme", "crm")
	f.Add(i.Issue(testClaims, ForPage, testNow, -time.Hour), "", strings.Repeat("x", 300))
	f.Add("hgt1_AAAA", "\x00", "\xff")
	f.Fuzz(func(t *testing.T, token, org, caller string) {
		c, err := i.Verify(token, ForCalls, testNow)
		switch {
		case err == nil || errors.Is(err, ErrExpired):
			// Whoever is recognised gets the same token again: there is no
			// second way to write one.
			if again := i.Issue(c, ForCalls, c.Expires, 0); again != token {
				t.Fatalf("%q and %q say the same", token, again)
			}
		case c != Claims{}:
			t.Fatalf("%+v beside %v", c, err)
		}
		if len(org)+len(caller) > 2500 {
			return
		}
		got, err := i.Verify(i.Issue(Claims{Org: org, Caller: caller}, ForCalls, testNow, time.Hour), ForCalls, testNow)
		if err != nil || got.Org != org || got.Caller != caller {
			t.Fatalf("%+v, %v", got, err)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	i := NewIssuer(NewSecret())
	token := i.Issue(testClaims, ForCalls, testNow, time.Hour)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := i.Verify(token, ForCalls, testNow); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkIssue(b *testing.B) {
	i := NewIssuer(NewSecret())
	b.ReportAllocs()
	for b.Loop() {
		i.Issue(testClaims, ForCalls, testNow, time.Hour)
	}
}
