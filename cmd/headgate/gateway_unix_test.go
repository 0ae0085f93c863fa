//go:build unix

package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// SIGHUP reads the file again, and what the command line says in its place holds
// on. A file that is wrong is not taken over, and the gateway goes on.
func TestHangUp(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const org = "orgs: {acme: {api_url: 'http://127.0.0.1:1', login_url: 'http://127.0.0.1:1', credentials: {client_id: a, client_secret: {env: ACME}}}}\n"
	write(org)
	gateway := exec.Command(headgateBinary(t), "gateway", "--config", file, "--listen", "127.0.0.1:0", "--data", t.TempDir(), "--for", "1m")
	gateway.Env = append(os.Environ(), "ACME=b")
	stderr, err := gateway.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := gateway.Start(); err != nil {
		t.Fatal(err)
	}
	defer gateway.Process.Kill()
	lines := bufio.NewScanner(stderr)
	hear := func(what string) {
		t.Helper()
		for lines.Scan() {
			switch line := lines.Text(); {
			case strings.Contains(line, what):
				return
			case strings.Contains(line, "the file was"):
				t.Fatalf("want %q, heard %s", what, line)
			}
		}
		t.Fatalf("never heard %q", what)
	}
	hear("the gateway is on")
	gateway.Process.Signal(syscall.SIGHUP)
	hear("the file was read again")
	write("lisen: x\n" + org)
	gateway.Process.Signal(syscall.SIGHUP)
	hear("the file was not taken over")
	gateway.Process.Signal(syscall.SIGTERM)
	hear("draining")
	for lines.Scan() {
	}
	if err := gateway.Wait(); err != nil {
		t.Errorf("the gateway: %v", err)
	}
}
