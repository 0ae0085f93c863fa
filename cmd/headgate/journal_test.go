package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/headgate/headgate/emulator"
	"github.com/headgate/headgate/internal/bulk"
	"github.com/headgate/headgate/internal/queue"
	"github.com/headgate/headgate/internal/sqlite"
)

// makeJournal makes a journal with rows and no bulk.Job.
func makeJournal(t *testing.T, path string, rows int, meta map[string]string) {
	t.Helper()
	s, err := sqlite.Open(path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range meta {
		if err := s.SetMeta(t.Context(), k, []byte(v)); err != nil {
			t.Fatal(err)
		}
	}
	for range rows {
		if err := s.Add(t.Context(), []queue.Execution{{Method: "POST", Path: "/else"}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// Only what a run was filling is begun anew; a store of something else stays.
func TestForeignStore(t *testing.T) {
	for _, test := range []struct {
		name string
		rows int
		meta map[string]string
		code int
	}{
		{"filled half", 5, map[string]string{metaFilling: "1"}, 0},
		{"about to be filled", 0, map[string]string{metaFilling: "1"}, 0},
		{"just made", 0, nil, 0},
		{"of something else", 5, map[string]string{"gateway": "x"}, 2},
		{"of something else that is empty", 0, map[string]string{sqlite.MetaLimiter: "[]"}, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			input := writeRows(t, 2)
			journal := filepath.Join(filepath.Dir(input), "j")
			makeJournal(t, journal, test.rows, test.meta)
			code, _, stderr := command(t, nil, nil, "run", "--emulator", "--journal", journal, input)
			if code != test.code {
				t.Fatalf("exit %d, want %d\n%s", code, test.code, stderr)
			}
			s, err := sqlite.Open(journal, sqlite.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			counts, err := s.Counts(t.Context())
			want := int64(2)
			if test.code != 0 {
				want = int64(test.rows)
				if !strings.Contains(stderr, "not the journal of a run") {
					t.Errorf("it says %s", stderr)
				}
			}
			if err != nil || counts.Total() != want {
				t.Errorf("%d rows in it, want %d (%v)", counts.Total(), want, err)
			}
			if _, filled, _ := bulk.JobOf(t.Context(), s); filled != (test.code == 0) {
				t.Errorf("filled: %v", filled)
			}
		})
	}
}

// The journal of the emulator is in a folder of its own, which goes at the end
// however that comes.
func TestTemporaryJournal(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.jsonl")
	if err := os.WriteFile(bad, []byte("nonsense\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"good":     {writeRows(t, 2)},
		"bad row":  {bad},
		"bad out":  {"--out", filepath.Join(bad, "out"), writeRows(t, 2)},
		"bad flow": {"--flow", "a/b", writeRows(t, 2)},
	} {
		t.Run(name, func(t *testing.T) {
			temp := t.TempDir()
			t.Setenv("TMPDIR", temp)
			command(t, nil, nil, append([]string{"run", "--emulator"}, args...)...)
			if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
				t.Errorf("it left %v (%v)", left, err)
			}
		})
	}
}

// A password in a URL is refused before anything is stored, and shown nowhere.
func TestPasswordInURL(t *testing.T) {
	t.Setenv("GENESYSCLOUD_OAUTHCLIENT_ID", "id")
	t.Setenv("GENESYSCLOUD_OAUTHCLIENT_SECRET", "not-it")
	for _, url := range []string{
		"http://user:hunter2@127.0.0.1:1", "http://user:hunter2@@127.0.0.1:1", "user:hunter2@127.0.0.1",
		"http://user:hunter2@h:port", "http://127.0.0.1:1?password=hunter2", "http://127.0.0.1:1/#hunter2",
		"ftp://127.0.0.1/hunter2", "http:///hunter2", "http://h/%hunter2",
	} {
		for _, flags := range [][]string{
			{"--api-url", url, "--login-url", "http://127.0.0.1:1"},
			{"--api-url", "http://127.0.0.1:1", "--login-url", url},
			{"--dry-run", "--api-url", url, "--login-url", url},
		} {
			input := writeRows(t, 1)
			args := append(append([]string{"run"}, flags...), input)
			code, _, stderr := command(t, nil, nil, args...)
			if code != 2 || strings.Contains(stderr, "hunter2") || !strings.Contains(stderr, "-url: ") {
				t.Errorf("%q: exit %d, %s", flags, code, stderr)
			}
			if left, _ := os.ReadDir(filepath.Dir(input)); len(left) != 1 {
				t.Errorf("%q: left %v", flags, left)
			}
		}
	}
}

// One address that is written in two ways is one target.
func TestAddress(t *testing.T) {
	for given, want := range map[string]string{
		"http://h:1": "http://h:1", "http://h:1/": "http://h:1", "HTTP://H:1//": "http://h:1",
		"https://H/Gate/": "https://h/Gate", "https://h:443": "https://h", "http://h:80/": "http://h", "http://h:": "http://h",
		"https://h:80": "https://h:80", "http://[::1]:8080/": "http://[::1]:8080", "http://[::1]": "http://[::1]",
	} {
		if got, err := address("api-url", given); err != nil || got != want {
			t.Errorf("%s: %q, %v", given, got, err)
		}
	}
}

// With standard input and nothing sent, no journal stays; what was sent is kept
// and named.
func TestJournalOfStandardInput(t *testing.T) {
	run := func(t *testing.T, secret string) (code int, stderr string, left []os.DirEntry) {
		_, url := emulate(t, emulator.Config{})
		cmd := exec.Command(headgateBinary(t), "run", "--limit", "100/s", "--api-url", url, "--login-url", url, "--out", filepath.Join(t.TempDir(), "out"), "-")
		cmd.Dir = t.TempDir()
		cmd.Env = append(os.Environ(), "GENESYSCLOUD_OAUTHCLIENT_ID=emulator-client", "GENESYSCLOUD_OAUTHCLIENT_SECRET="+secret)
		cmd.Stdin = strings.NewReader("{\"flowId\":\"f\",\"n\":1}\n")
		out, _ := cmd.CombinedOutput()
		left, err := os.ReadDir(cmd.Dir)
		if err != nil {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), string(out), left
	}
	code, stderr, left := run(t, "wrong")
	if code != 3 || len(left) > 0 || !strings.Contains(stderr, "no journal is kept") {
		t.Errorf("exit %d, left %v\n%s", code, left, stderr)
	}
	if code, stderr, left = run(t, "emulator-secret"); code != 0 || len(left) > 0 {
		t.Errorf("exit %d, left %v\n%s", code, left, stderr)
	}
}
