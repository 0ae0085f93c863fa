package bulk

import (
	"cmp"
	"context"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/headgate/headgate/internal/queue"
)

// Results writes what became of the rows in their order, as far as it is known.
// It is not safe for concurrent use.
type Results struct {
	// Store holds the rows, W gets the lines.
	Store queue.Store
	W     io.Writer
	// Summary counts what was written.
	Summary Summary

	last int64
}

// Advance writes the results that follow those written before, up to the first
// row that has no outcome yet.
func (r *Results) Advance(ctx context.Context) error {
	return WriteResults(r.W, r.ended(ctx))
}

func (r *Results) ended(ctx context.Context) iter.Seq2[queue.Execution, error] {
	return func(yield func(queue.Execution, error) bool) {
		for x, err := range r.Store.Each(ctx, queue.Filter{After: r.last}) {
			if err == nil && !x.State.Ended() {
				return
			}
			if !yield(x, err) {
				return
			}
			if err == nil {
				r.last = x.ID
				r.Summary.add(x)
			}
		}
	}
}

// Summary counts outcomes and what they took.
type Summary struct {
	Rows, Done, Failed, Expired, Unknown int64
	// Attempts were put on the wire; Refused of them a limit refused,
	// Retries were made after other failures.
	Attempts, Refused, Retries, Polls int64
	// MaybeTwice counts the rows that are done and may have been executed
	// more than once.
	MaybeTwice int64
	// causes counts the rows that are not done, by outcome and reason.
	causes map[string]*Cause
}

// Cause is why some rows are not done.
type Cause struct {
	Outcome queue.State
	Reason  string // of the first of them
	Count   int64
	Rows    []int64 // the first few
}

const (
	maxCauses    = 50 // kinds of reasons told apart
	maxCauseRows = 5
)

func (s *Summary) add(x queue.Execution) {
	s.Rows++
	s.Attempts += int64(x.Tally.Sent)
	s.Refused += int64(x.Tally.Refused)
	s.Retries += int64(x.Tally.Retries)
	s.Polls += int64(x.Tally.Polls)
	switch x.State {
	case queue.Done:
		s.Done++
		if x.Tally.Unanswered > 0 {
			s.MaybeTwice++
		}
		return
	case queue.Failed:
		s.Failed++
	case queue.Expired:
		s.Expired++
	case queue.Unknown:
		s.Unknown++
	}
	if s.causes == nil {
		s.causes = map[string]*Cause{}
	}
	key := x.State.String() + " " + kind(x.Reason)
	c := s.causes[key]
	if c == nil && len(s.causes) >= maxCauses {
		key = x.State.String()
		c = s.causes[key]
	}
	if c == nil {
		c = &Cause{Outcome: x.State, Reason: x.Reason}
		s.causes[key] = c
	}
	if c.Count++; len(c.Rows) < maxCauseRows {
		c.Rows = append(c.Rows, x.ID)
	}
}

// kind returns what reasons of one kind have in common: they differ in what is
// in parentheses, brackets and quotes, and in their numbers.
func kind(reason string) string {
	var b strings.Builder
	depth := 0
	for _, c := range reason {
		switch {
		case strings.ContainsRune("([{", c):
			depth++
		case strings.ContainsRune(")]}", c):
			depth = max(0, depth-1)
		case depth > 0 || '0' <= c && c <= '9' && b.Len() > 40:
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

// Causes returns the causes, the most frequent first.
func (s *Summary) Causes() []*Cause {
	return slices.SortedFunc(maps.Values(s.causes), func(a, b *Cause) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Rows[0], b.Rows[0]))
	})
}
