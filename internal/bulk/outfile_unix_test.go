//go:build unix

package bulk

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestOutFileOverPipe(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Skip("no named pipes here:", err)
	}
	got := make(chan string)
	go func() {
		b, _ := os.ReadFile(fifo)
		got <- string(b)
	}()
	write(t, fifo, "through")
	if text := <-got; text != "through" {
		t.Errorf("through the pipe came %q", text)
	}
	only(t, dir, "fifo")
}
