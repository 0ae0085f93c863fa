package bulk

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/headgate/headgate/internal/queue"
)

func sequence(xs []queue.Execution, last error) iter.Seq2[queue.Execution, error] {
	return func(yield func(queue.Execution, error) bool) {
		for _, x := range xs {
			if !yield(x, nil) {
				return
			}
		}
		if last != nil {
			yield(queue.Execution{}, last)
		}
	}
}

func TestWriteResults(t *testing.T) {
	xs := []queue.Execution{
		{ID: 1, State: queue.Done, Path: "/api/v2/architect/flows/f-1/execute", Status: 200, Tally: queue.Tally{Sent: 1},
			Answer: []byte("{ \"n\": 12345678901234567890.10,\n \"h\": \"<&>\\u00e9\" }\n")},
		{ID: 2, State: queue.Failed, Path: "/api/v2/architect/flows/f-2/execute", Status: 404, Reason: "no such flow <f-2>",
			Tally: queue.Tally{Sent: 4, Refused: 2, Retries: 1, Unanswered: 1, Waits: map[string]time.Duration{
				"backoff": 1500*time.Millisecond + 600*time.Microsecond, "Retry-After": 3 * time.Second, "client": 400 * time.Microsecond}},
			Answer: []byte("<html>\xff\n")},
		{ID: 3, State: queue.Done, Path: "/api/v2/flows/executions", Body: []byte(`{"flowId":"f-3","name":"x"}`), Remote: "e-7", Tally: queue.Tally{Sent: 1, Polls: 5}},
		{ID: 4, State: queue.Failed, Reason: "lacks flowId"},
		{ID: 5, State: queue.Queued, Path: "/api/v2/flows/executions", Body: []byte(`{"flowId":7`), Answer: []byte("null")},
		{ID: 6, State: queue.Unknown, Path: "/api/v2/flows/executions", Body: []byte(`{"flowId":7}`), Answer: []byte("{\"a\":\"\xff\"}")},
	}
	want := `{"row":1,"flowId":"f-1","outcome":"done","attempts":1,"status":200,"answer":{"n":12345678901234567890.10,"h":"<&>\u00e9"}}
{"row":2,"flowId":"f-2","outcome":"failed","attempts":4,"refused":2,"retries":1,"maybeExecuted":1,"waitedMs":4501,"waits":{"Retry-After":3000,"backoff":1501},"status":404,"reason":"no such flow <f-2>","answer":"<html>�\n"}
{"row":3,"flowId":"f-3","outcome":"done","attempts":1,"polls":5,"id":"e-7"}
{"row":4,"flowId":"","outcome":"failed","attempts":0,"reason":"lacks flowId"}
{"row":5,"flowId":"","outcome":"queued","attempts":0,"answer":null}
{"row":6,"flowId":"","outcome":"unknown","attempts":0,"answer":"{\"a\":\"�\"}"}
`
	var out strings.Builder
	if err := WriteResults(&out, sequence(xs, nil)); err != nil {
		t.Fatal(err)
	}
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
	for line := range strings.Lines(out.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
}

func TestWriteResultsFailing(t *testing.T) {
	broken := errors.New("broken")
	xs := []queue.Execution{{ID: 1, State: queue.Done}}
	var out strings.Builder
	err := WriteResults(&out, sequence(xs, broken))
	if !errors.Is(err, broken) || err.Error() != "writing results: broken" {
		t.Errorf("a broken journal gives %v", err)
	}
	if want := `{"row":1,"flowId":"","outcome":"done","attempts":0}` + "\n"; out.String() != want {
		t.Errorf("before the error was written %q", out.String())
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	w.Close()
	if err := WriteResults(w, sequence(xs, nil)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a closed file gives %v", err)
	}
}

func TestDigest(t *testing.T) {
	const abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	d := NewDigest(iotest.OneByteReader(iotest.DataErrReader(strings.NewReader("abc"))))
	got, err := io.ReadAll(d)
	if err != nil || string(got) != "abc" {
		t.Fatalf("read %q, %v", got, err)
	}
	if want := (Fingerprint{SHA256: abc, Size: 3}); d.Fingerprint() != want {
		t.Errorf("got %+v, want %+v", d.Fingerprint(), want)
	}

	text := []byte("flowId\nf\n\"g\"\n")
	d = NewDigest(bytes.NewReader(text))
	for range Read(d, Options{}) {
	}
	whole := NewDigest(bytes.NewReader(text))
	io.Copy(io.Discard, whole)
	if d.Fingerprint() != whole.Fingerprint() {
		t.Error("Read did not read its input to the end")
	}
}
