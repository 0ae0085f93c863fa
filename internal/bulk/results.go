package bulk

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/headgate/headgate/internal/queue"
)

// Result is one line of a results file: what became of one row. Its field
// names are stable; fields that have nothing to say are left out, except the
// first four.
type Result struct {
	// Row is the number of the row in the input, from 1.
	Row int64 `json:"row"`
	// Flow is the flow's id, "" if the row named none that can be used.
	Flow string `json:"flowId"`
	// Outcome is done, failed, expired or unknown. A row that has none yet
	// has no line.
	Outcome string `json:"outcome"`
	// Attempts counts the requests that were put on the wire for it.
	Attempts int `json:"attempts"`
	// Refused counts the attempts that a limit refused (429), Retries those
	// that another failure made necessary.
	Refused int `json:"refused,omitempty"`
	Retries int `json:"retries,omitempty"`
	// MaybeExecuted counts the attempts that may have been executed though
	// no usable answer came. If it is above 0 and the outcome is done, the
	// row may have been executed so many times more than once.
	MaybeExecuted int `json:"maybeExecuted,omitempty"`
	// Polls counts the status requests that followed a launch.
	Polls int `json:"polls,omitempty"`
	// WaitedMS is how long it waited in all, and Waits for what, in
	// milliseconds.
	WaitedMS int64            `json:"waitedMs,omitempty"`
	Waits    map[string]int64 `json:"waits,omitempty"`
	// Status is the last HTTP status, Reason why it is not done, or that
	// the answer is cut.
	Status int    `json:"status,omitempty"`
	Reason string `json:"reason,omitempty"`
	// ID is what the server calls a launched execution.
	ID string `json:"id,omitempty"`
	// Answer is the server's answer: as it is if it is JSON, else as a
	// JSON string. If it had more than [deliver.MaxAnswer] bytes it is cut there,
	// which makes it a string, and AnswerBytes says how many it had.
	Answer      json.RawMessage `json:"answer,omitempty"`
	AnswerBytes int64           `json:"answerBytes,omitempty"`
}

// ResultOf returns what x has to say as a result.
func ResultOf(x queue.Execution) Result {
	r := Result{
		Row:           x.ID,
		Flow:          flowOf(x),
		Outcome:       x.State.String(),
		Attempts:      x.Tally.Sent,
		Refused:       x.Tally.Refused,
		Retries:       x.Tally.Retries,
		MaybeExecuted: x.Tally.Unanswered,
		Polls:         x.Tally.Polls,
		Status:        x.Status,
		Reason:        x.Reason,
		ID:            x.Remote,
		Answer:        asJSON(x.Answer),
		AnswerBytes:   x.Tally.AnswerBytes,
	}
	var waited time.Duration
	for cause, d := range x.Tally.Waits {
		waited += d
		if ms := d.Round(time.Millisecond).Milliseconds(); ms > 0 {
			if r.Waits == nil {
				r.Waits = map[string]int64{}
			}
			r.Waits[cause] = ms
		}
	}
	r.WaitedMS = waited.Round(time.Millisecond).Milliseconds()
	return r
}

// flowOf finds the flow's id where its endpoint has it: in the path, or in
// the body.
func flowOf(x queue.Execution) string {
	if _, rest, ok := strings.Cut(x.Path, "/architect/flows/"); ok {
		id, _, _ := strings.Cut(rest, "/")
		if id, err := url.PathUnescape(id); err == nil {
			return id
		}
		return id
	}
	if json.Valid(x.Body) && len(x.Body) > 0 && x.Body[0] == '{' {
		for m := range members(x.Body) {
			if m.is("flowId") {
				return unquote(m.value)
			}
		}
	}
	return ""
}

func asJSON(b []byte) json.RawMessage {
	switch {
	case len(b) == 0:
		return nil
	case json.Valid(b) && utf8.Valid(b):
		return b
	}
	return appendString(nil, strings.ToValidUTF8(string(b), "\uFFFD"))
}

// WriteResults writes one line of JSON for each execution to w. It stops at
// the first error, of xs or of w; the lines before are written then.
func WriteResults(w io.Writer, xs iter.Seq2[queue.Execution, error]) error {
	bw := bufio.NewWriterSize(w, 64<<10)
	enc := json.NewEncoder(bw)
	enc.SetEscapeHTML(false) // answers are to stay as they came
	for x, err := range xs {
		if err == nil {
			err = enc.Encode(ResultOf(x))
		}
		if err != nil {
			_ = bw.Flush() // the first error is the one to tell
			return fmt.Errorf("writing results: %w", err)
		}
	}
	if err := bw.Flush(); err != nil {
		return fmt.Errorf("writing results: %w", err)
	}
	return nil
}
