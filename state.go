package headgate

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"

	"github.com/headgate/headgate/internal/bucket"
)

// State is what a limiter knows of one bucket, to be kept over a restart: a
// restart never refills a bucket.
type State struct {
	// Limit and what follows say which bucket.
	Limit  string `json:"limit"`
	Match  string `json:"match,omitempty"`
	Org    string `json:"org,omitempty"`
	Client string `json:"client,omitempty"`
	Token  string `json:"token,omitempty"`
	Path   string `json:"path,omitempty"`
	// Templates are the paths that were seen to draw on the limit although
	// none of that name is configured for them; "*" stands for an
	// identifier.
	Templates []string `json:"templates,omitempty"`
	// At is when the rest was so, by the wall clock.
	At time.Time `json:"at"`
	// Spent is how many tokens a full bucket lacked; more than it holds, if
	// some were owed.
	Spent float64 `json:"spent"`
	// Unsure is how many more may have left since At, of which Spent knows
	// nothing: Restore takes them for spent just then. Snapshot leaves it 0;
	// it is for those who store a snapshot now and then, and not for each
	// request.
	Unsure float64 `json:"unsure,omitempty"`
	// Gate is until when the server wants everybody to stay away; zero if
	// it does not.
	Gate time.Time `json:"gate,omitzero"`
	// Probing: the server refused, and has accepted nothing since.
	Probing bool `json:"probing,omitempty"`
	// Learned is what was learned of the limit, if anything. What is in it
	// is the limiter's own; what it can't read it leaves out.
	Learned json.RawMessage `json:"learned,omitempty"`
}

// Snapshot returns the state of all buckets that are not as good as new, or of
// which something was learned.
func (l *Limiter) Snapshot() []State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.snapshot(l.now())
}

// snapshot is Snapshot. The limiter is locked.
func (l *Limiter) snapshot(now bucket.Instant) []State {
	wall := time.Now()
	var states []State
	for key, a := range l.accounts {
		learned, ok := a.bucket.Learned(now)
		if !ok && a.unused == nil && a.bucket.Idle(now) {
			continue
		}
		s := State{
			Limit: a.name, Org: key.org, Client: key.client, Token: key.token, Path: key.path,
			At: wall.UTC().Round(0), Spent: a.bucket.Spent(now), Probing: a.bucket.Probing(),
		}
		if a.limit != implicit {
			s.Match = l.limits[a.limit].Match
			s.Templates = l.templates(a.limit)
		}
		if ok {
			s.Learned, _ = json.Marshal(learned) // numbers, and finite ones
		} else {
			s.Learned = a.unused
		}
		if gate, closed := a.bucket.Gate(now); closed {
			s.Gate = s.At.Add(gate - now)
		}
		states = append(states, s)
	}
	slices.SortFunc(states, func(a, b State) int {
		return cmp.Or(cmp.Compare(a.Limit, b.Limit), cmp.Compare(a.Org, b.Org), cmp.Compare(a.Client, b.Client),
			cmp.Compare(a.Token, b.Token), cmp.Compare(a.Path, b.Path))
	})
	return states
}

// Restore takes over what an earlier limiter knew, and must come before the
// first Take. Buckets refill for the time that has passed since; a clock that
// went backwards refills nothing. A limit that was learned from a refusal is
// known again. Of any other that l does not have, the gate holds for the token,
// if the state has one.
func (l *Limiter) Restore(states []State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.restore(states, l.now())
}

// restore is Restore. The limiter is locked.
func (l *Limiter) restore(states []State, now bucket.Instant) {
	for _, s := range states {
		key := laneKey{org: s.Org, client: s.Client, token: s.Token, path: s.Path}
		limit := slices.IndexFunc(l.limits, func(have known) bool { return have.Name == s.Limit && have.Match == s.Match })
		for _, t := range s.Templates {
			if i, _, _ := l.learn(s.Limit, t); limit < 0 {
				limit = i
			}
		}
		if limit >= 0 {
			a := l.account(limit, key)
			b := &a.bucket
			age := max(0, time.Since(s.At))
			b.Restore(now, s.Spent, age)
			a.relearn(s, now, age)
			b.Doubt(now, s.Unsure)
			restoreGate(b, s, now)
			continue
		}
		if s.Token == "" && s.Limit != ImplicitLimit {
			continue
		}
		a := l.account(implicit, key)
		if s.Limit == ImplicitLimit {
			a.relearn(s, now, max(0, time.Since(s.At)))
		}
		restoreGate(&a.bucket, s, now)
		for i, have := range l.limits {
			if have.Per == PerToken && !have.learned {
				restoreGate(&l.account(i, key).bucket, s, now)
			}
		}
	}
}

// relearn takes over what was learned. What was learned of a limit of which
// something else is told now is kept for a limiter that is told the same again;
// what can't be read is left out.
func (a *account) relearn(s State, now bucket.Instant, age time.Duration) {
	var m bucket.Learned
	if len(s.Learned) > 0 && json.Unmarshal(s.Learned, &m) == nil && m.Valid() && !a.bucket.Relearn(now, m, age) {
		a.unused = s.Learned
	}
}

// restoreGate closes the gate as it was, or lets a probe go first.
func restoreGate(b *bucket.Bucket, s State, now bucket.Instant) {
	if left := time.Until(s.Gate); left > 0 {
		b.Refused(now, 0, now, now+left, left, true)
	} else if s.Probing {
		b.Probe()
	}
}
