package headgate

import (
	"cmp"
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
	// At is when the rest was so, by the wall clock.
	At time.Time `json:"at"`
	// Spent is how many tokens a full bucket lacked; more than it holds, if
	// some were owed.
	Spent float64 `json:"spent"`
	// Gate is until when the server wants everybody to stay away; zero if
	// it does not.
	Gate time.Time `json:"gate,omitzero"`
	// Probing: the server refused, and has accepted nothing since.
	Probing bool `json:"probing,omitempty"`
}

// Snapshot returns the state of all buckets that are not as good as new.
func (l *Limiter) Snapshot() []State {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	wall := time.Now()
	var states []State
	for key, a := range l.accounts {
		if a.bucket.Idle(now) {
			continue
		}
		s := State{
			Limit: a.name, Org: key.org, Client: key.client, Token: key.token, Path: key.path,
			At: wall.UTC().Round(0), Spent: a.bucket.Spent(now), Probing: a.bucket.Probing(),
		}
		if a.limit != implicit {
			s.Match = l.limits[a.limit].Match
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
// went backwards refills nothing. Of a limit that l does not have, the gate
// holds for the token, if the state has one.
func (l *Limiter) Restore(states []State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for _, s := range states {
		key := laneKey{org: s.Org, client: s.Client, token: s.Token, path: s.Path}
		limit := slices.IndexFunc(l.limits, func(have Limit) bool { return have.Name == s.Limit && have.Match == s.Match })
		if limit >= 0 {
			b := &l.account(limit, key).bucket
			b.Restore(now, s.Spent, max(0, time.Since(s.At)))
			restoreGate(b, s, now)
			continue
		}
		if s.Token == "" && s.Limit != implicitName {
			continue
		}
		restoreGate(&l.account(implicit, key).bucket, s, now)
		for i, have := range l.limits {
			if have.Per == PerToken {
				restoreGate(&l.account(i, key).bucket, s, now)
			}
		}
	}
}

// restoreGate closes the gate as it was, or lets a probe go first.
func restoreGate(b *bucket.Bucket, s State, now bucket.Instant) {
	if left := time.Until(s.Gate); left > 0 {
		b.Refused(now, now, now+left)
	} else if s.Probing {
		b.Probe()
	}
}
