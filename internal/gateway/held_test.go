package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// crowdEnv holds the address and the number of connections in a process that
// opens them: they would not all fit into one with the server.
const crowdEnv = "HEADGATE_TEST_CROWD"

// crowdChild opens connections with a call each. A line on stdin closes one of
// them, its end all.
func crowdChild(job string, in io.Reader) error {
	var address string
	var n int
	if _, err := fmt.Sscan(job, &address, &n); err != nil {
		return err
	}
	request := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: test\r\nAccept: */*\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{\"n\":1}", executePath)
	var conns []net.Conn
	for range n {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return err
		}
		conns = append(conns, c)
		if _, err := io.WriteString(c, request); err != nil {
			return err
		}
	}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		conns[0].Close()
		conns = conns[1:]
	}
	return nil
}

// crowd has n callers come, and returns what the process needs for each of them
// more than before, in bytes. leave has one of them go away, end all.
func crowd(t *testing.T, address string, n int, held func() int64) (each float64, leave, end func()) {
	t.Helper()
	before := memory()
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", crowdEnv, address, n))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	var once sync.Once
	end = func() {
		once.Do(func() {
			in.Close()
			must(t, cmd.Wait())
		})
	}
	t.Cleanup(end)
	wait(t, "all to be held", func() bool { return held() == int64(n) })
	return (memory() - before) / float64(n), func() { io.WriteString(in, "\n") }, end
}

// memory is what the process uses: heap and stacks.
func memory() float64 {
	for range 3 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc + m.StackInuse)
}

// 10,000 callers are held at once. Beyond what a bare server needs to hold them
// each costs 8 KB at most; one that goes away frees its place at once; and no
// goroutine is left of them.
func TestHeldCallers(t *testing.T) {
	n, most := 1000, float64(12<<10) // what the tests before have left behind counts for more among few
	if *figures {
		n, most = 10_000, 8<<10
	}
	var holding gauge
	bare := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		holding.add(1)
		<-r.Context().Done()
		holding.add(-1)
	}))
	defer bare.Close()
	alone, _, end := crowd(t, strings.TrimPrefix(bare.URL, "http://"), n, holding.value)
	end()
	wait(t, "the bare server's callers to go", func() bool { return holding.value() == 0 })

	b := newBench(t, plan{limits: unlimited()})
	if a := b.do("POST", executePath, body(0)); a.status != 200 { // logs in
		t.Fatalf("before: %d %s", a.status, a.body)
	}
	client.CloseIdleConnections()
	o := b.g.setting().orgs[0]
	o.limiter.Pause()
	goroutines := runtime.NumGoroutine()
	ours, leave, end := crowd(t, strings.TrimPrefix(b.url, "http://"), n, func() int64 { return int64(inLine(o)) })
	t.Logf("a held caller needs %.0f bytes, %.0f beyond the %.0f of a bare server", ours, ours-alone, alone)
	if ours-alone > most && !raceDetector {
		t.Errorf("a held caller needs %.0f bytes beyond a bare server's", ours-alone)
	}
	start := time.Now()
	leave()
	wait(t, "one place to be free", func() bool { return inLine(o) == n-1 })
	t.Logf("a caller that goes away frees its place after %v", time.Since(start))
	end()
	wait(t, "all places to be free", func() bool { return inLine(o) == 0 && o.held.Load() == 0 })
	wait(t, "their goroutines to end", func() bool { return runtime.NumGoroutine() <= goroutines })
	o.limiter.Resume()
	if a := b.do("POST", executePath, body(1)); a.status != 200 {
		t.Errorf("afterwards: %d %s", a.status, a.body)
	}
}

// A call that can't wait for the login of the gateway is one that had no place in
// time, and not one that the platform refused.
func TestLoginThatTakesTooLong(t *testing.T) {
	b := newBench(t, plan{})
	b.end()
	b.open(nil)
	o := b.g.setting().orgs[0]
	o.limiter.Pause() // of logins, too
	if a := b.do("POST", executePath, body(1), "Prefer: wait=0"); a.status != 429 || a.header.Get("Retry-After") == "" {
		t.Errorf("answered %d: %s", a.status, a.body)
	}
	a := b.do("POST", executePath, body(2), "Prefer: respond-async, wait=0")
	if a.status != 202 {
		t.Fatalf("answered %d: %s", a.status, a.body)
	}
	o.limiter.Resume()
	if a := b.do("GET", a.execution(t).Self, "", "Prefer: wait=10"); a.execution(t).State != "done" {
		t.Errorf("it ended as %s", a.body)
	}
}
