package bucket

import (
	"time"
)

// window is what is believed of a server that counts in windows: at most quota
// requests in width, wherever the window begins. Keeping to that suits a fixed
// window as well as a sliding one.
type window struct {
	quota  int
	width  time.Duration
	sure   bool // it was told, or proved
	proved bool // a request beyond the quota was refused when it should be

	start  Instant       // of the window that is open
	begun  Instant       // of the first one
	filled time.Duration // how long that took to be used up
	used   int           // in it
	// What tells a fixed window from a sliding one: the last of a quota is
	// held back for a second, and goes at once in the next window. A fixed
	// one accepts that; a sliding one refuses it, when nothing else could
	// go either.
	kind          Algorithm
	holding, held bool    // in this window, in the one before
	test          Instant // when it went at once; below 0 if not
	slides        bool    // it was refused

	accepted int     // in it
	fell     int     // accepted in the latest that held less than the quota
	rest     int     // what the first refusal has shown it to hold beyond the quota
	since    float64 // accepted since one beyond the quota was tried
	due      Instant // when one goes beyond the quota
	tried    Instant // when one was, in this window; 0 if not
}

// beyond is how far from a whole second before the window's end one request more
// than the quota goes: Retry-After is whole seconds, so if that is refused, its
// gate opens right after the window's end.
const beyond = 10 * time.Millisecond

// ready returns when the next request goes that the log would let go at logged.
func (w *window) ready(now, logged Instant) Instant {
	switch {
	case w.over(now):
	case w.used >= w.quota && w.due < Never:
		return w.due
	case w.used >= w.quota:
		return max(logged, w.start+w.width)
	case w.used == w.quota-1 && w.holding:
		return max(w.due, logged)
	case w.used == w.quota-1 && w.held && w.kind == Unknown && !w.slides:
		return now
	}
	return logged
}

// over reports whether the window that was open is over.
func (w *window) over(now Instant) bool { return w.used == 0 || now >= w.start+w.width }

// heldFrom is the quota from which on the last one is held back for a second: of a
// small one, somebody might need it.
const heldFrom = 30

func (w *window) take(now Instant) {
	if w.over(now) {
		w.held = w.holding && w.used >= w.quota
		w.start, w.used, w.accepted, w.tried, w.holding, w.due = now, 0, 0, 0, false, Never
	}
	w.used++
	switch {
	case w.used == w.quota-1:
		if w.sure && w.kind == Unknown && !w.held && w.quota >= heldFrom && w.width > 2*time.Second {
			w.holding, w.due = true, w.start+time.Second-2*beyond
		}
	case w.used == w.quota:
		w.test = -1
		if w.held {
			w.test = now
		}
		if w.tried == 0 {
			w.due = w.try(now)
		}
	case w.used > w.quota:
		w.due, w.tried = Never, now
	}
}

// try returns when in this window, whose quota is used up at now, one request
// more goes: early in the first one, to know whether it is a window, and later
// on rarely and right before its end, to know whether the quota is all.
func (w *window) try(now Instant) Instant {
	left := time.Second
	if !w.sure {
		left = (w.start + w.width - now + beyond).Truncate(time.Second)
	} else if w.since < probeEvery && w.rest >= 0 {
		return Never
	}
	if left < time.Second {
		return Never
	}
	return max(now, w.start+w.width-left+beyond)
}

// looksLikeWindow reports whether the first refusal says so: a bucket that was
// accepting as fast as that has its next token within a second.
func (l *learner) looksLikeWindow(i interval) bool {
	wait := l.episode.longest.Seconds()
	if wait < 2 || i.accepted < 8 || i.accepted/i.seconds*(wait-1) < 8 {
		return false
	}
	// Retry-After is rounded up to a second. What is added is for jitter on
	// the way.
	begun := l.anchor.at
	width := (l.episode.asked - begun + time.Duration(0.2*l.rtt*1e9)).Truncate(time.Second)
	// If it is a bucket after all, so many would be refused once more; if it
	// is a window, the rest goes when the quota is used up.
	quota := int(0.9 * i.accepted)
	l.window = window{
		quota: quota, rest: int(i.accepted) - quota, width: width, test: -1,
		start: begun, begun: begun, used: quota, filled: time.Duration(i.seconds * 1e9),
	}
	l.rate = i.accepted / width.Seconds()
	l.variance = square(l.rate)
	return true
}

// windowAccepted: a request was accepted.
func (l *learner) windowAccepted(sent Instant) {
	w := &l.window
	w.since++
	if sent == w.test {
		w.kind = FixedWindow
	}
	if sent >= w.start {
		w.accepted++
	}
	extra := w.accepted - w.quota
	if w.tried == 0 || sent < w.tried || extra < 0 {
		return
	}
	w.due = 0
	few := 3 + w.quota/32
	switch {
	case extra <= w.rest+few:
	case w.sure:
		// It holds more than that: the width was told, or proved. From here on a
		// few go at once, and a few more when those were accepted.
		w.quota, w.rest = min(w.accepted+few, maxQuota), -few
		l.rate = float64(w.quota) / w.width.Seconds()
	default:
		// No window. It was refilled meanwhile, and will be full until the
		// search is as fast as that.
		l.window = window{}
		l.x, l.xAt = 1, l.last
		l.rises(max(l.rate, afterWindow))
		l.full = true
	}
}

// afterWindow is the rate from which a bucket is searched that looked like a
// window.
const afterWindow = 10

// windowRefused: a request was refused when the interval ended.
func (l *learner) windowRefused(i interval) {
	w := &l.window
	e := &l.episode
	end, held := w.start+w.width, w.used-e.count
	fits := (e.asked - end).Abs() < 1100*time.Millisecond
	switch {
	case w.slides:
		w.kind, w.slides = SlidingWindow, false
	case w.proved && w.tried == 0 && !fits:
		w.proved = false // the next time it is no window
	case e.from >= end || w.tried == 0 && !(fits && w.sure):
		// A bucket after all.
		rate := i.rate(emptyLevel)
		if l.told || !l.anchor.known {
			rate = l.rate
		}
		l.phase, l.window = track, window{}
		l.rate = max(rate, lowest)
		if !l.told {
			l.phase = search
			l.halve()
		}
	case w.tried != 0:
		w.quota, w.rest = max(held, 1), 0
		w.sure, w.proved, w.since = true, true, 0
	default:
		w.holds(held)
	}
	if l.phase == windows {
		l.rate = float64(w.quota) / w.width.Seconds()
	}
	l.anchorAt(e.to, e.toSeq, emptyLevel, emptyVariance)
}

// holds: a window was used up by fewer than the quota. Others may have drawn on it,
// and may not the next time; but a few, or as many twice in a row, is what there is.
func (w *window) holds(accepted int) {
	few := 1 + accepted/32
	if w.quota-accepted <= few || max(accepted-w.fell, w.fell-accepted) <= few {
		w.quota = accepted
	} else {
		w.quota = (w.quota + accepted) / 2
	}
	w.quota, w.fell, w.rest = max(w.quota, 1), accepted, 0
}

// windowTested: if what was refused is the request that tells a sliding window,
// or one that it overtook, there is room for one more.
func (l *learner) windowTested(sent Instant) {
	w := &l.window
	if w.test >= 0 && !w.slides && w.tried == 0 && sent >= w.test-time.Duration((l.rtt+0.01)*1e9) {
		w.slides, w.held, w.test, w.due = true, false, -1, Never
		w.used--
	}
}
