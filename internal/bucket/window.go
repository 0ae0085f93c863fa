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
	before Instant       // of the one before it
	last   int           // used in that
	most   int           // to which the quota may grow in this one
	begun  Instant       // of the first one
	filled time.Duration // how long that took to be used up
	used   int           // in it
	// What tells a fixed window from a sliding one: the last of a quota is
	// held back for a second, and goes at once in the next window. A fixed
	// one accepts that; a sliding one refuses it, when nothing else could
	// go either.
	kind   Algorithm
	hold   Instant // until when the last of this window is held back; 0 if it is not
	held   bool    // it was in the one before
	tested uint64  // the one that went at once; 0 if none
	test   Instant // when that was
	slides bool    // it was refused

	extra int     // accepted in it beyond the quota
	fell  int     // accepted in the latest that held less than the quota; below 0 if that has grown since
	rest  int     // what the first refusal has shown it to hold beyond the quota
	step  int     // by how much the quota was lifted last, 0 if it is not growing
	went  int     // how many of those have gone
	since float64 // accepted since one beyond the quota was tried
	due   Instant // when one goes beyond the quota
	tried uint64  // which one did, in this window; 0 if none
}

// aside is how far from a whole second before the window's end one request more
// than the quota goes: Retry-After is whole seconds, so if that is refused, its
// gate opens right after the window's end.
const aside = 10 * time.Millisecond

// ready returns when the next request goes that the log would let go at logged.
func (w *window) ready(now, logged Instant) Instant {
	switch {
	case w.step > 0 && w.due <= now:
		return now
	case w.over(now):
	case w.used >= w.quota && w.due < Never:
		return w.due
	case w.used >= w.quota:
		return max(logged, w.start+w.width)
	case w.used == w.quota-1 && w.hold > 0:
		return max(w.hold, logged)
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

// take notes that a request goes, and whether that is one more than the log would
// let go.
func (w *window) take(now Instant, seq uint64, more bool) {
	if w.over(now) {
		w.held = w.hold > 0 && w.used >= w.quota
		w.before, w.last, w.most = w.start, w.used, min(2*w.quota, maxQuota)
		w.start, w.used, w.extra, w.tried, w.hold, w.due = now, 0, 0, 0, 0, Never
	}
	w.used++
	w.went++
	switch {
	case w.used > w.quota, w.step > 0 && more:
		w.due, w.tried, w.went = Never, seq, w.went-1
	case w.used == w.quota-1:
		if w.sure && w.step == 0 && w.kind == Unknown && !w.held && w.quota >= heldFrom && w.width > 2*time.Second {
			w.hold = w.start + time.Second - 2*aside
		}
	case w.used == w.quota:
		w.tested = 0
		if w.held {
			w.tested, w.test = seq, now
		}
		switch {
		case w.tried > 0:
		case w.step > 0: // it grows since the window before
			w.due = now
		default:
			w.due = w.try(now)
		}
	}
}

// try returns when in this window, whose quota is used up at now, one request
// more goes: in the first one, to know whether it is a window, and later on
// rarely, to know whether the quota is all. It goes early: a server that counts by
// the clock may begin another window at any time.
func (w *window) try(now Instant) Instant {
	left := (w.start + w.width - now + aside).Truncate(time.Second)
	if left < time.Second || w.sure && w.since < probeEvery {
		return Never
	}
	return max(now, w.start+w.width-left+aside)
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
		quota: quota, rest: int(i.accepted) - quota, width: width,
		start: begun, begun: begun, used: quota, filled: time.Duration(i.seconds * 1e9),
	}
	l.rate = i.accepted / width.Seconds()
	l.variance = square(l.rate)
	return true
}

// windowAccepted: a request was accepted.
func (l *learner) windowAccepted(seq uint64) {
	w := &l.window
	w.since++
	if seq == w.tested {
		w.kind = FixedWindow
	}
	if seq != w.tried {
		return
	}
	// One more than the quota.
	w.extra++
	w.due = 0
	few := 3 + w.quota/32
	switch {
	case w.sure:
		// It holds more: twice as many as the time before.
		w.step, w.went = min(max(1, 2*w.step), few), 0
		w.quota = max(w.quota, min(w.quota+1+w.step, w.most))
		if w.quota >= w.most {
			w.due = Never
		}
		l.rate = float64(w.quota) / w.width.Seconds()
	case w.extra > w.rest+few:
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
	w, e := &l.window, &l.episode
	begun, held := w.start, w.used-e.count
	early := held <= 0 // the window before is not over
	if early {
		begun, held = w.before, w.last
	}
	width := max(time.Second, (e.asked - begun).Round(time.Second))
	late := e.asked - begun - w.width
	fits := late.Abs() < 1100*time.Millisecond
	looks := e.longest >= 2*time.Second && held >= 8
	step := w.step
	w.step = 0
	switch {
	case step > 0:
		// It holds no more. Of those that it was lifted by last, some may
		// have been accepted.
		w.quota += min(w.went, step) - step - e.count
		if e.toSeq == w.tried {
			w.quota++
		}
		w.quota, w.since, w.fell = max(1, w.quota), 0, -1
	case w.slides:
		w.kind, w.slides = SlidingWindow, false
	case early && w.sure && (l.told || late > 2200*time.Millisecond):
		w.holds(0) // others have used it up
	case early && held >= 8:
		w.start, w.used = w.before, w.last
		w.width = max(width, w.width+time.Second)
	case fits && w.tried != 0:
		if !w.sure {
			w.width = width
		}
		w.quota, w.rest = max(held, 1), 0
		w.sure, w.proved, w.since = true, true, 0
	case w.sure && (fits || looks && e.longest < w.width+time.Second):
		// Others draw on it, or it began at another time: with a request of
		// theirs, or by the clock.
		if held < w.quota {
			w.holds(held)
		}
		if !fits && !w.proved {
			w.start = e.asked - w.width
		}
	case looks:
		w.width, w.quota, w.rest = width, held, 0
	case w.proved && w.tried == 0:
		w.proved = false // the next time it is no window
	default:
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
	}
	if l.phase == windows {
		l.rate = float64(w.quota) / w.width.Seconds()
	}
	l.anchorAt(e.to, e.toSeq, emptyLevel, emptyVariance)
}

// holds: a window was used up by fewer than the quota. Others may have drawn on it,
// and may not the next time; but a few, or as many twice in a row, is what there is,
// and a quota that has just grown may have grown too far.
func (w *window) holds(accepted int) {
	few := 1 + accepted/32
	if w.fell < 0 || w.quota-accepted <= few || w.fell > 0 && max(accepted-w.fell, w.fell-accepted) <= few {
		w.quota = accepted
	} else {
		w.quota = (w.quota + accepted) / 2
	}
	w.quota, w.fell = max(w.quota, 1), accepted
}

// windowTested: if what was refused is the request that tells a sliding window,
// or one that it overtook, there is room for one more.
func (l *learner) windowTested(sent Instant) {
	w := &l.window
	if w.tested > 0 && !w.slides && w.tried == 0 && sent >= w.test-time.Duration((l.rtt+0.01)*1e9) {
		w.slides, w.held, w.tested, w.due = true, false, 0, Never
		w.used--
	}
}
