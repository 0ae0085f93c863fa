package bulk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/headgate/headgate/genesys"
	"github.com/headgate/headgate/internal/queue"
)

// metaJob is the key in a journal under which its Job is kept.
const metaJob = "job"

// Job is what a journal was begun for. It is written when all rows are in the
// journal: a journal without one was interrupted while it was filled, and
// nothing was sent of it.
type Job struct {
	Input    string      `json:"input"` // its name, for messages
	Content  Fingerprint `json:"content"`
	Target   string      `json:"target"` // the URL of the API, or "emulator"
	Flow     string      `json:"flow,omitempty"`
	Endpoint string      `json:"endpoint"`
	Rows     int64       `json:"rows"`
	// Client is the OAuth client that it was begun with, "" if that is not
	// known. What it may see and how fast is its own.
	Client string `json:"client,omitempty"`
	// MaxWait is the Intake's: every row's deadline is in the journal.
	MaxWait time.Duration `json:"maxWait,omitempty"`
	// Skipped are bad rows, TooLarge those whose body the server would not
	// take. Both failed on acceptance.
	Skipped  int64     `json:"skipped,omitempty"`
	TooLarge int64     `json:"tooLarge,omitempty"`
	Begun    time.Time `json:"begun"`
}

// JobOf returns the job that a journal was begun for; ok is false if it was not
// filled.
func JobOf(ctx context.Context, s queue.Store) (job Job, ok bool, err error) {
	value, err := s.Meta(ctx, metaJob)
	if err != nil || value == nil {
		return Job{}, false, err
	}
	if err := json.Unmarshal(value, &job); err != nil {
		return Job{}, false, fmt.Errorf("reading what the journal was begun for: %w", err)
	}
	return job, true, nil
}

// Differs says in what job, of the journal, differs from want, "" if in nothing
// that matters: rows of one must not be taken for rows of the other.
func (job Job) Differs(want Job) string {
	switch {
	case job.Content != want.Content:
		return fmt.Sprintf("the input has changed since (it had %d bytes, now %d)", job.Content.Size, want.Content.Size)
	case job.Target != want.Target:
		return fmt.Sprintf("it was for %s, not for %s", job.Target, want.Target)
	case job.Flow != want.Flow:
		return fmt.Sprintf("it was begun with --flow %q, not %q", job.Flow, want.Flow)
	case job.Endpoint != want.Endpoint:
		return fmt.Sprintf("it was begun with --endpoint %s, not %s", job.Endpoint, want.Endpoint)
	case job.Client != want.Client && job.Client != "":
		return fmt.Sprintf("it was begun with the OAuth client %s, not %s", job.Client, want.Client)
	case job.MaxWait != want.MaxWait:
		return fmt.Sprintf("it was begun %s, not %s, and each row has its time from then", maxWait(job.MaxWait), maxWait(want.MaxWait))
	}
	return ""
}

func maxWait(d time.Duration) string {
	if d == 0 {
		return "without --max-wait"
	}
	return fmt.Sprintf("with --max-wait %v", d)
}

// Intake says how an input becomes executions.
type Intake struct {
	Options
	// Target is where they go, and Client the OAuth client's id, for the
	// Job.
	Target, Client string
	// MaxWait is how long after acceptance an execution expires if it was
	// not sent; 0: never.
	MaxWait time.Duration
	// SkipBad accepts bad rows as failed.
	SkipBad bool
	// Progress, if set, is called with the number of rows now and then.
	Progress func(rows int64)
}

// BadInput is returned for an input with bad rows.
type BadInput struct {
	First []error // at most maxShown
	Count int64
}

const maxShown = 10

// Error lists the first bad rows, one a line.
func (e *BadInput) Error() string {
	var b strings.Builder
	for i, err := range e.First {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(err.Error())
	}
	if more := e.Count - int64(len(e.First)); more > 0 {
		fmt.Fprintf(&b, "\nand %d more", more)
	}
	return b.String()
}

// Fill reads the input and puts its rows into the store, as executions with the
// rows' numbers as IDs. A nil store checks the input only. When it returns an
// error, the store is of no use.
func (in Intake) Fill(ctx context.Context, r io.Reader, s queue.Store) (Job, error) {
	digest := NewDigest(r)
	job := Job{Input: in.Name, Target: in.Target, Client: in.Client, MaxWait: in.MaxWait, Flow: in.Flow, Endpoint: in.Endpoint.String(), Begun: time.Now().UTC()}
	var bad BadInput
	batch := make([]queue.Execution, 0, 1000)
	bytes := 0
	flush := func() (err error) {
		if s != nil && len(batch) > 0 {
			err = s.Add(ctx, batch)
		}
		batch, bytes = batch[:0], 0
		return err
	}
	for row, err := range Read(digest, in.Options) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return job, err
		}
		job.Rows = row.N
		x := in.execution(row, job.Begun)
		var large *BodyTooLargeError
		if errors.As(row.Err, &large) {
			job.TooLarge++
		} else if row.Err != nil {
			if bad.Count++; len(bad.First) < maxShown {
				bad.First = append(bad.First, row.Err)
			}
		}
		if bad.Count > 0 && !in.SkipBad {
			continue // the rest is only checked
		}
		batch = append(batch, x)
		if bytes += len(x.Body); len(batch) == cap(batch) || bytes > 8<<20 {
			if err := flush(); err != nil {
				return job, err
			}
			if in.Progress != nil {
				in.Progress(job.Rows)
			}
		}
	}
	if bad.Count > 0 && !in.SkipBad {
		return job, &bad
	}
	if err := flush(); err != nil {
		return job, err
	}
	job.Skipped = bad.Count
	job.Content = digest.Fingerprint()
	if s == nil {
		return job, nil
	}
	value, err := json.Marshal(job)
	if err == nil {
		err = s.SetMeta(ctx, metaJob, value)
	}
	return job, err
}

// execution returns what a row becomes.
func (in Intake) execution(row Row, now time.Time) queue.Execution {
	x := queue.Execution{Method: "POST", Body: row.Body, Path: genesys.LaunchPath}
	if in.Endpoint == Execute && row.Flow != "" {
		x.Path = genesys.ExecutePath(row.Flow)
	}
	if in.MaxWait > 0 {
		x.Deadline = now.Add(in.MaxWait)
	}
	if row.Err != nil {
		x.State, x.Reason, x.Ended = queue.Failed, row.Err.Error(), now
	}
	return x
}

// String returns the word that the command line uses.
func (e Endpoint) String() string {
	if e == Launch {
		return "launch"
	}
	return "execute"
}

// UnmarshalText reads the word: execute or launch.
func (e *Endpoint) UnmarshalText(text []byte) error {
	switch string(text) {
	case "execute":
		*e = Execute
	case "launch":
		*e = Launch
	default:
		return fmt.Errorf("%q is none of execute, launch", text)
	}
	return nil
}

// MarshalText returns the word.
func (e Endpoint) MarshalText() ([]byte, error) { return []byte(e.String()), nil }
