package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/headgate/headgate/bench/contender"
)

// contest is what is to be held.
type contest struct {
	scenarios  []Scenario
	contenders []contender.Contender
	only       []string // patterns of scenario/contender; empty: all
	runs       int
	parallel   int
	redis      *redisServer // nil: not installed, and those who need it are left out
	progress   io.Writer
}

// cells returns what is to be run: the long ones first, so that no long one is
// left alone at the end, and those that need the machine for themselves last.
func (c *contest) cells() []cell {
	var cells []cell
	for i := range c.scenarios {
		for _, who := range c.contenders {
			one := cell{scenario: &c.scenarios[i], contender: who}
			if one.why() != "" || who.Redis && c.redis == nil || !c.wanted(one) {
				continue
			}
			for one.run = 1; one.run <= c.runs; one.run++ {
				cells = append(cells, one)
			}
		}
	}
	slices.SortStableFunc(cells, func(a, b cell) int {
		if a.scenario.Alone != b.scenario.Alone {
			if a.scenario.Alone {
				return 1
			}
			return -1
		}
		return cmp.Compare(b.scenario.Deadline, a.scenario.Deadline)
	})
	return cells
}

func (c *contest) wanted(one cell) bool {
	return len(c.only) == 0 || slices.ContainsFunc(c.only, func(pattern string) bool {
		ok, _ := path.Match(pattern, one.scenario.Name+"/"+one.contender.ID)
		return ok
	})
}

// atMost is how long the cells may take together.
func (c *contest) atMost(cells []cell) time.Duration {
	free := make([]time.Duration, max(1, c.parallel))
	for _, one := range cells {
		next := slices.Index(free, slices.Min(free))
		if one.scenario.Alone {
			all := slices.Max(free)
			for i := range free {
				free[i] = all
			}
		}
		free[next] += one.scenario.Deadline
	}
	return slices.Max(free)
}

// stagger keeps runs from beginning in the same instant: each begins with
// hundreds of connections.
const stagger = 300 * time.Millisecond

// hold runs the cells, several at once, and returns what came of those that
// ended before ctx did. Cells that fail do not stop the others; their errors
// come back together.
func (c *contest) hold(ctx context.Context, cells []cell) ([]*outcome, error) {
	var (
		mu       sync.Mutex // guards what follows
		outcomes []*outcome
		errs     []error
		ended    int
		began    = time.Now()
	)
	address := ""
	if c.redis != nil {
		address = c.redis.addr
	}
	play := func(one cell) {
		o, err := one.play(ctx, address)
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			return
		}
		ended++
		fmt.Fprintf(c.progress, "%4s %*d/%d  %-36v ", time.Since(began).Round(time.Second), len(fmt.Sprint(len(cells))), ended, len(cells), one)
		if err != nil {
			errs = append(errs, err)
			fmt.Fprintln(c.progress, err)
			return
		}
		outcomes = append(outcomes, o)
		fmt.Fprintln(c.progress, o.line())
	}
	var running sync.WaitGroup
	slots := make(chan struct{}, max(1, c.parallel))
	for i, one := range cells {
		if one.scenario.Alone {
			running.Wait()
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if i > 0 {
			select {
			case <-time.After(stagger):
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			break
		}
		running.Go(func() {
			defer func() { <-slots }()
			play(one)
		})
		if one.scenario.Alone {
			running.Wait()
		}
	}
	running.Wait()
	return outcomes, errors.Join(errs...)
}

// line is an outcome in a line, for whoever watches.
func (o *outcome) line() string {
	words := []string{fmt.Sprintf("%6.2f s  %5.3f  %7s of 429", o.span.Seconds(), o.ratio(), percent(o.perAccepted()))}
	for _, n := range []struct {
		value int64
		word  string
	}{{o.early, "early"}, {o.lost, "lost"}, {o.doubled, "doubled"}} {
		if n.value > 0 {
			words = append(words, fmt.Sprintf("%d %s", n.value, n.word))
		}
	}
	return strings.Join(words, "  ")
}

// punctual measures how late this machine's timers are while the contest runs:
// what a client can't be blamed for.
type punctual struct {
	stop chan struct{}
	done chan struct{}
	late []float64 // in seconds
}

func watch() *punctual {
	p := &punctual{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		const every = 20 * time.Millisecond
		for {
			begin := time.Now()
			select {
			case <-p.stop:
				return
			case <-time.After(every):
				p.late = append(p.late, (time.Since(begin) - every).Seconds())
			}
		}
	}()
	return p
}

// end returns by how much 99 of 100 timers were late at most, and the latest.
func (p *punctual) end() (most, latest time.Duration) {
	close(p.stop)
	<-p.done
	if len(p.late) == 0 {
		return 0, 0
	}
	slices.Sort(p.late)
	at := func(i int) time.Duration { return time.Duration(p.late[i] * float64(time.Second)) }
	return at(len(p.late) * 99 / 100), at(len(p.late) - 1)
}
