package headgate

import "time"

// CallerUse is what one caller has had of a limiter since it was made.
type CallerUse struct {
	// Caller is the name, as in Ask.Caller; Weight the latest one.
	Caller string
	Weight float64
	// Waiting is how many of its calls are in line now.
	Waiting int
	// Granted is how many permits it got, those that it returned among
	// them; Waited is how long it waited for them altogether.
	Granted uint64
	Waited  time.Duration
}

// Callers returns what each caller has had, by name. There are at most 4096: the
// names that come after them are counted together as "other".
func (l *Limiter) Callers() []CallerUse { return nil }

// InLine is one who waits.
type InLine struct {
	Caller, Path string
	Priority     int
	// Since is when it came, and Wait how long it has waited so far and
	// what for.
	Since time.Time
	Wait  Wait
	// Limit is the limit that holds it up now. Cause says why, in the
	// words of [Tries.Waits]: "" if its bucket is empty, else
	// WaitRetryAfter, WaitReserved or WaitPaused.
	Limit, Cause string
	// Expected is how long it will go on waiting if nobody comes who goes
	// before it, and as if there were no pause.
	Expected time.Duration
}

// Line returns the first n who wait, in the order in which they would go now.
// That is exact for those who draw on the same limits, and approximate
// otherwise: who can't go because of one limit lets others go who don't draw on
// it.
func (l *Limiter) Line(n int) []InLine { return nil }
