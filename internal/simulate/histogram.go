package simulate

import (
	"math"
	"math/bits"
	"time"
)

// Histogram counts durations in buckets that are less than 0.8 % wide, so that
// the percentiles of ten million waits take 30 kB and no sorting.
type Histogram struct {
	counts []uint64
	n      uint64
	sum    float64 // nanoseconds
	max    time.Duration
}

// fine is how many bits of a duration are kept: 128 buckets between a power of
// two and the next.
const fine = 7

// Add counts d once. Below 0 it is 0.
func (h *Histogram) Add(d time.Duration) {
	d = max(d, 0)
	i := slotOf(d)
	if i >= len(h.counts) {
		h.counts = append(h.counts, make([]uint64, i+1-len(h.counts))...)
	}
	h.counts[i]++
	h.n++
	h.sum += float64(d)
	h.max = max(h.max, d)
}

// slotOf returns the index of the bucket that d falls into.
func slotOf(d time.Duration) int {
	shift := max(0, bits.Len64(uint64(d))-fine-1)
	return shift<<fine + int(d>>shift)
}

// lowest returns the smallest duration of a bucket.
func lowest(i int) time.Duration {
	shift := max(0, i>>fine-1)
	return time.Duration(i-shift<<fine) << shift
}

// Merge adds what g has counted.
func (h *Histogram) Merge(g *Histogram) {
	if d := len(g.counts) - len(h.counts); d > 0 {
		h.counts = append(h.counts, make([]uint64, d)...)
	}
	for i, c := range g.counts {
		h.counts[i] += c
	}
	h.n += g.n
	h.sum += g.sum
	h.max = max(h.max, g.max)
}

// N returns how many were counted.
func (h *Histogram) N() uint64 { return h.n }

// Max returns the longest, exactly.
func (h *Histogram) Max() time.Duration { return h.max }

// Mean returns the mean, 0 of none.
func (h *Histogram) Mean() time.Duration {
	if h.n == 0 {
		return 0
	}
	return time.Duration(h.sum / float64(h.n))
}

// Quantile returns the duration that the share q of all does not exceed: never
// less than it is, and less than 0.8 % more. Of none it is 0.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := max(1, uint64(math.Ceil(q*float64(h.n))))
	seen := uint64(0)
	for i, c := range h.counts {
		if seen += c; seen >= rank {
			return min(lowest(i+1)-1, h.max)
		}
	}
	return 0
}
