package keys

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestLoadSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data", "gateway.secret")
	first, err := LoadSecret(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() != secretLength {
		t.Fatalf("%v, %v", info, err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("there are %v", left)
	}
	again, err := LoadSecret(path)
	if err != nil {
		t.Fatal(err)
	}
	token := NewIssuer(first).Issue(testClaims, ForCalls, testNow, time.Hour)
	if _, err := NewIssuer(again).Verify(token, ForCalls, testNow); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	other, err := LoadSecret(path + "2")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewIssuer(other).Verify(token, ForCalls, testNow); err != ErrForged {
		t.Errorf("two secrets are the same: %v", err)
	}
}

// Of many that begin at once all have the same secret.
func TestLoadSecretAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.secret")
	var secrets [16][secretLength]byte
	var wait sync.WaitGroup
	for n := range secrets {
		wait.Go(func() {
			s, err := LoadSecret(path)
			if err != nil {
				t.Error(err)
			}
			secrets[n] = s.bytes()
		})
	}
	wait.Wait()
	for _, s := range secrets {
		if s != secrets[0] || s == [secretLength]byte{} {
			t.Fatal("two processes have two secrets")
		}
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("there are %v", left)
	}
}

func TestLoadSecretRefuses(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, n int, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, n), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for path, want := range map[string]string{
		write("short", 31, 0o600): "has 31 bytes",
		write("long", 33, 0o600):  "has 33 bytes",
		write("empty", 0, 0o600):  "has 0 bytes",
		dir:                       "is not a file",
		filepath.Join(write("file", 1, 0o600), "x"): "file",
	} {
		if _, err := LoadSecret(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if runtime.GOOS != "windows" {
		if _, err := LoadSecret(write("read", 32, 0o640)); err == nil || !strings.Contains(err.Error(), "by others") {
			t.Errorf("one that others can read: %v", err)
		}
	}
}

func TestSecretHidesItself(t *testing.T) {
	s := secretOf([secretLength]byte([]byte("abcdefghijklmnopqrstuvwxyz012345")))
	asJSON, err := json.Marshal(struct{ S Secret }{s})
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("%v %+v %#v %s %x %d %v %+v %#v %s", s, s, s, s, s, s, struct{ s Secret }{s}, struct{ S Secret }{s}, &s, asJSON)
	if strings.Contains(text, "abc") || strings.Contains(text, "616263") || strings.Contains(text, "97 98") || strings.Contains(text, "0x61") {
		t.Error(text)
	}
}
