//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"
)

// Ctrl-C while the input is read ends the run, even if nobody writes into it,
// and leaves nothing behind.
func TestInterruptWhileReading(t *testing.T) {
	// A pipe each: what opens one and is given up stays behind, and would be
	// the other end for the next one.
	var fifos [2]string
	for i := range fifos {
		fifos[i] = filepath.Join(t.TempDir(), "fifo")
		if err := syscall.Mkfifo(fifos[i], 0o600); err != nil {
			t.Skip(err)
		}
	}
	for name, args := range map[string][]string{
		"run":            {"run", "--emulator", "-"},
		"dry run":        {"run", "--dry-run", "-"},
		"named pipe":     {"run", "--emulator", fifos[0]},
		"out is a pipe":  {"run", "--emulator", "--out", fifos[1], "-"},
		"before the API": {"run", "--limit", "5/s", "--api-url", "http://127.0.0.1:1", "--login-url", "http://127.0.0.1:1", "-"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("GENESYSCLOUD_OAUTHCLIENT_ID", "id")
			t.Setenv("GENESYSCLOUD_OAUTHCLIENT_SECRET", "not-it")
			dir, temp := t.TempDir(), t.TempDir()
			t.Chdir(dir)
			t.Setenv("TMPDIR", temp)
			stdin, blocked := io.Pipe()
			defer blocked.Close()
			go blocked.Write([]byte("{\"flowId\":\"f\"}\n")) // and then nothing more
			signals := make(chan os.Signal, 4)
			time.AfterFunc(300*time.Millisecond, func() { signals <- syscall.SIGINT })
			var talk bytes.Buffer
			p := process{args: args, env: os.Getenv, signals: signals, stdin: stdin, stdout: io.Discard, stderr: &talk}
			code := make(chan int, 1)
			go func() { code <- p.run() }()
			select {
			case code := <-code:
				if code != 130 || !strings.Contains(talk.String(), "interrupted; nothing was sent") {
					t.Errorf("exit %d\n%s", code, talk.String())
				}
			case <-time.After(5 * time.Second):
				t.Fatal("it does not heed the signal")
			}
			for _, d := range []string{dir, temp} {
				if left, err := os.ReadDir(d); err != nil || len(left) > 0 {
					t.Errorf("it left %v in %s (%v)", left, d, err)
				}
			}
		})
	}
}

// Output that nobody takes must not keep a run from ending at the second
// signal.
func TestInterruptBlockedOutput(t *testing.T) {
	_, blocked := io.Pipe()
	signals := make(chan os.Signal, 4)
	for _, after := range []time.Duration{1500, 2000} {
		time.AfterFunc(after*time.Millisecond, func() { signals <- syscall.SIGINT })
	}
	var talk bytes.Buffer
	t.Setenv("TMPDIR", t.TempDir())
	p := process{
		args: []string{"run", "--emulator", "--progress", "none", writeRows(t, 3)}, env: os.Getenv, signals: signals,
		stdin: strings.NewReader(""), stdout: blocked, stderr: &talk,
	}
	code := make(chan int, 1)
	go func() { code <- p.run() }()
	select {
	case code := <-code:
		if code != 130 || !strings.Contains(talk.String(), "interrupted") {
			t.Errorf("exit %d\n%s", code, talk.String())
		}
	case <-time.After(6 * time.Second):
		t.Fatal("it does not heed the signals")
	}
	blocked.Close()
}

func TestInterruptibleReader(t *testing.T) {
	want := strings.Repeat("0123456789abcdef", 30_000)
	got, err := io.ReadAll(interruptible(t.Context(), iotest.HalfReader(strings.NewReader(want))))
	if err != nil || string(got) != want {
		t.Errorf("read %d bytes of %d: %v", len(got), len(want), err)
	}
	broken := errors.New("broken")
	r := interruptible(t.Context(), io.MultiReader(strings.NewReader("ab"), iotest.ErrReader(broken)))
	if got, err := io.ReadAll(r); err != broken || string(got) != "ab" {
		t.Errorf("read %q: %v", got, err)
	}
	if _, err := r.Read(make([]byte, 1)); err != broken {
		t.Errorf("the error is gone: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r = interruptible(ctx, strings.NewReader(want))
	if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := r.Read(make([]byte, 10)); err != context.Canceled {
		t.Errorf("after the end of the context: %v", err)
	}
}
