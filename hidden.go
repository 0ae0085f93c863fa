package headgate

import (
	"slices"
	"unicode"
	"unicode/utf8"

	"github.com/headgate/headgate/internal/bucket"
)

// known is a limit of the server as the limiter knows it: configured, or
// learned from a refusal that named it.
type known struct {
	Limit
	// A learned one is drawn on by the requests whose paths have one of the
	// templates: they were seen to be refused by it. Without templates it
	// is a place that is free.
	learned   bool
	templates []string
	// buckets is the index of the limit whose buckets it draws on: its
	// own, or that of the configured one with its name, if the server has
	// named that for a path outside of Match.
	buckets int
}

// What a server says must not make the limiter grow without bound: beyond
// these, and for limits that do not fit maxLimits, a refusal counts as one that
// names no limit.
const (
	maxName      = 128 // bytes of a limit's name
	maxTemplates = 64  // for each limit
	maxTemplate  = 1024
)

// covers reports whether requests to path draw on k.
func (k *known) covers(path string) bool {
	if !k.learned {
		return k.matches(path)
	}
	for _, t := range k.templates {
		if folds(path, t) {
			return true
		}
	}
	return false
}

// folds reports whether t is the template of path, without making it.
func folds(path, t string) bool {
	for path != "" && t != "" {
		var s, want string
		s, path = cutSegment(path)
		want, t = cutSegment(t)
		if s != want && (want != "/*" || !isIdentifier(s[1:])) {
			return false
		}
	}
	return path == t
}

// isName reports whether s, which comes from the network, can be the name of a
// limit: it is kept, and shown to people.
func isName(s string) bool {
	if s == "" || len(s) > maxName || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// named returns the account of the limit that has refused the attempt of p; the
// token's, if o names none. If nobody knew that requests such as this one draw
// on it, they do from now on: news is their template then. The limiter is
// locked.
func (l *Limiter) named(p Permit, o Observation) (a *account, template string, news bool) {
	for _, name := range [...]string{o.Limit, o.Alias} {
		if a := p.lane.named(name); a != nil {
			return a, "", false
		}
	}
	name := o.Limit
	if l.configured(name) < 0 && l.configured(o.Alias) >= 0 {
		name = o.Alias
	}
	i, template, news := l.learn(name, p.path)
	if i < 0 {
		return p.lane.token, "", false
	}
	ln := l.laneBeside(p.lane, p.path) // in which it would be by now
	return l.account(i, ln.key), template, news
}

// templates returns the paths that are known to draw on the buckets of limit i
// from refusals alone. It must not be changed.
func (l *Limiter) templates(i int) []string {
	for _, k := range l.limits {
		if len(k.templates) > 0 && k.buckets == i {
			return slices.Clip(k.templates)
		}
	}
	return nil
}

// configured returns the index of the first configured limit with that name, or
// -1.
func (l *Limiter) configured(name string) int {
	return slices.IndexFunc(l.limits, func(k known) bool { return !k.learned && k.Name == name })
}

// learn notes that requests to path draw on the limit that the server calls
// name. It returns the index of the limit, or -1 if that can't be noted, and
// the template of path if it is news. The limiter is locked.
func (l *Limiter) learn(name, path string) (i int, t string, news bool) {
	if !isName(name) {
		return -1, "", false
	}
	i = slices.IndexFunc(l.limits, func(k known) bool { return k.learned && k.Name == name })
	if i >= 0 && l.limits[i].covers(path) {
		return i, "", false
	}
	t = template(path)
	if len(t) > maxTemplate || i >= 0 && len(l.limits[i].templates) >= maxTemplates {
		return -1, "", false
	}
	if i < 0 {
		if i = l.place(); i < 0 {
			return -1, "", false
		}
		k := &l.limits[i]
		*k = known{Limit: Limit{Name: name}, learned: true, buckets: i}
		if of := l.configured(name); of >= 0 {
			k.Limit, k.buckets = l.limits[of].Limit, of
		}
		l.learned++
	}
	l.limits[i].templates = append(l.limits[i].templates, t)
	return i, t, true
}

// place returns the index at which a limit may be noted, or -1.
func (l *Limiter) place() int {
	free := func(k known) bool { return k.learned && len(k.templates) == 0 }
	if i := slices.IndexFunc(l.limits, free); i >= 0 {
		return i
	}
	if len(l.limits) < maxLimits {
		l.limits = append(l.limits, known{})
		return len(l.limits) - 1
	}
	l.clean()
	return slices.IndexFunc(l.limits, free)
}

// forget drops what was learned of limits on which nobody draws and whose
// buckets are as good as new. The limiter is locked.
func (l *Limiter) forget() {
	if l.learned == 0 {
		return
	}
	var used uint64 // by index; a lane keeps the accounts that it draws on
	for key := range l.accounts {
		if key.limit != implicit {
			used |= 1 << key.limit
		}
	}
	for i := range l.limits {
		if k := &l.limits[i]; len(k.templates) > 0 && used&(1<<k.buckets) == 0 {
			*k = known{learned: true}
			l.learned--
		}
	}
}

// regroup moves those in line whose path has the template t, and so has come to
// draw on another limit, to the lane in which they belong. They keep their
// place: by priority, by what their callers had, by arrival. The limiter is locked.
func (l *Limiter) regroup(t string, now bucket.Instant) {
	for _, ln := range slices.Clone(l.active) {
		for _, w := range ln.waiters() {
			if !folds(w.path, t) {
				continue
			}
			if to := l.laneBeside(ln, w.path); to != ln {
				l.move(w, to, now)
			}
		}
	}
}

func (l *Limiter) move(w *waiter, to *lane, now bucket.Instant) {
	from, key, cost := w.lane, w.queue.key, w.queue.standing.cost
	l.takeOut(w, now)
	before := slices.Clone(w.parts)
	w.lane = to
	l.join(w, key, cost, now)
	for i, part := range before {
		at := -1
		if i < len(from.accounts) {
			at = slices.Index(to.accounts, from.accounts[i])
		}
		if at < 0 {
			w.parts = append(w.parts, part) // nothing is added to it any more
			continue
		}
		w.parts[at] = w.parts[at].since(part)
	}
}
