package queue_test

import (
	"context"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate/internal/queue"
)

// permits hands out one permit each pace, to the most urgent who waits, and
// among those to the first.
type permits struct {
	mu    sync.Mutex // guards line
	line  []waiter
	given int
	most  int // the longest line that there was
}

type waiter struct {
	priority int
	go_      chan struct{}
}

func (p *permits) run(ctx context.Context, pace time.Duration) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		p.mu.Lock()
		best := -1
		for i, w := range p.line {
			if best < 0 || w.priority < p.line[best].priority {
				best = i
			}
		}
		if best >= 0 {
			close(p.line[best].go_)
			p.line = append(p.line[:best], p.line[best+1:]...)
			p.given++
		}
		p.mu.Unlock()
	}
}

func (p *permits) wait(ctx context.Context, priority int) error {
	w := waiter{priority, make(chan struct{})}
	p.mu.Lock()
	p.line = append(p.line, w)
	p.most = max(p.most, len(p.line))
	p.mu.Unlock()
	select {
	case <-w.go_:
		return nil
	case <-ctx.Done():
		p.mu.Lock()
		defer p.mu.Unlock()
		for i := range p.line {
			if p.line[i].go_ == w.go_ {
				p.line = append(p.line[:i], p.line[i+1:]...)
				break
			}
		}
		return ctx.Err()
	}
}

func (p *permits) send(began *sync.Map) queue.Sender {
	return func(ctx context.Context, x queue.Execution, leave func() error) (queue.Step, error) {
		if err := p.wait(ctx, x.Priority); err != nil {
			return queue.Step{}, err
		}
		if err := leave(); err != nil {
			return queue.Step{}, err
		}
		began.Store(x.ID, time.Now())
		return queue.Step{To: queue.Done, Tally: x.Tally}, nil
	}
}

// An urgent execution leaves within two permits' time, however many others wait
// with a slot each: 10,000 at 50/s and then 10, one after another.
func TestUrgentOvertakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pace = 20 * time.Millisecond
		var p permits
		var began sync.Map
		bulk := make([]queue.Execution, 10_000)
		for i := range bulk {
			bulk[i].Priority = 5
		}
		b := newBench(t, p.send(&began), bulk...)
		b.Stay = true
		ctx, cancel := context.WithCancel(t.Context())
		go p.run(ctx, pace)
		ended := make(chan error, 1)
		go func() { ended <- b.Run(ctx, t.Context()) }()
		time.Sleep(10*time.Second + pace/3)
		for i := range 10 {
			xs := []queue.Execution{{Priority: i % 3}}
			must(t, b.s.Add(t.Context(), xs))
			added := time.Now()
			b.Wake(xs[0].Place())
			time.Sleep(2 * pace)
			synctest.Wait()
			at, ok := began.Load(xs[0].ID)
			if !ok {
				t.Fatalf("urgent number %d did not start within two permits", i)
			}
			if d := at.(time.Time).Sub(added); d > 2*pace {
				t.Errorf("urgent number %d waited %v", i, d)
			}
			time.Sleep(time.Duration(i) * pace)
		}
		// The bulk went on in between, in its order.
		cancel()
		must(t, <-ended)
		synctest.Wait()
		if p.given < 500 {
			t.Errorf("only %d permits were used", p.given)
		}
	})
}

// What overtakes is bounded too, and comes to its end with all the others.
func TestUrgentBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p permits
		var began sync.Map
		bulk := make([]queue.Execution, 100)
		for i := range bulk {
			bulk[i].Priority = 5
		}
		b := newBench(t, p.send(&began), bulk...)
		b.Concurrency = 8
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- b.Run(t.Context(), t.Context()) }()
		time.Sleep(time.Second)
		must(t, b.s.Add(t.Context(), make([]queue.Execution, 100)))
		b.Wake(queue.Place{})
		time.Sleep(time.Second)
		synctest.Wait()
		p.mu.Lock()
		most := p.most
		p.mu.Unlock()
		if most != 16 {
			t.Errorf("%d sends at once, want 8 and 8 urgent ones", most)
		}
		c, err := b.s.Counts(t.Context())
		if held := c[queue.Claimed]; err != nil || held > 18 {
			t.Errorf("%d claimed at once, %v", held, err)
		}
		go p.run(ctx, time.Millisecond)
		must(t, <-ended)
		var last, first time.Time // of the urgent, of the bulk that was not yet in hand
		began.Range(func(id, at any) bool {
			switch {
			case id.(int64) > 100 && at.(time.Time).After(last):
				last = at.(time.Time)
			case id.(int64) > 10 && id.(int64) <= 100 && (first.IsZero() || at.(time.Time).Before(first)):
				first = at.(time.Time)
			}
			return true
		})
		if first.Before(last) {
			t.Errorf("bulk that was not in hand left %v before the last urgent one", last.Sub(first))
		}
	})
}

// One that was refused, or comes due, does not wait for a slot either.
func TestUrgentComesDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var left []time.Duration
		b := newBench(t, func(ctx context.Context, x queue.Execution, leave func() error) (queue.Step, error) {
			if x.Priority == 5 {
				return waiting(time.Hour)(ctx, x, leave)
			}
			must(t, leave())
			left = append(left, time.Since(start))
			x.Tally.Refused++
			switch x.Tally.Refused {
			case 1:
				return queue.Step{To: queue.Queued, Tally: x.Tally}, nil
			case 2:
				return queue.Step{To: queue.Queued, Due: time.Now().Add(10 * time.Second), Tally: x.Tally}, nil
			}
			return queue.Step{To: queue.Done, Tally: x.Tally}, nil
		}, queue.Execution{Priority: 5}, queue.Execution{Priority: 5}, queue.Execution{Priority: 5})
		b.Concurrency = 2
		take, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		go func() {
			time.Sleep(time.Second)
			must(t, b.s.Add(t.Context(), []queue.Execution{{}}))
			b.Wake(queue.Place{})
		}()
		must(t, b.Run(take, t.Context()))
		b.states(queue.Queued, queue.Queued, queue.Queued, queue.Done)
		if len(left) != 3 || left[0] != time.Second || left[1] != time.Second || left[2] < 11*time.Second || left[2] > 12*time.Second {
			t.Errorf("left after %v, want 1 s, 1 s, and 11 to 12 s", left)
		}
	})
}

// Executions of a caller who comes late stand beside those of one who has filled
// all slots, and leave room for what is urgent.
func TestTurnsOvertake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		began := map[string]int{}
		send := func(ctx context.Context, x queue.Execution, _ func() error) (queue.Step, error) {
			mu.Lock()
			began[x.Caller]++
			mu.Unlock()
			<-ctx.Done() // no permit comes
			return queue.Step{}, ctx.Err()
		}
		of := func(caller string, n, priority int) []queue.Execution {
			xs := make([]queue.Execution, n)
			for i := range xs {
				xs[i].Caller, xs[i].Weight, xs[i].Priority = caller, 1, priority
			}
			return xs
		}
		b := newBench(t, send, of("bulk", 100, 0)...)
		b.Stay, b.Concurrency = true, 100
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- b.Run(ctx, t.Context()) }()
		want := func(want map[string]int) {
			t.Helper()
			time.Sleep(time.Minute)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !maps.Equal(began, want) {
				t.Fatalf("began %v, want %v", began, want)
			}
		}
		add := func(xs []queue.Execution) {
			t.Helper()
			must(t, b.s.Add(t.Context(), xs))
			b.Wake(xs[0].Place())
		}
		want(map[string]int{"bulk": 100})
		add(of("late", 10, 0))
		want(map[string]int{"bulk": 100, "late": 10})
		add(of("later", 100, 0))
		want(map[string]int{"bulk": 100, "late": 10, "later": 40})
		add(of("urgent", 30, -1))
		want(map[string]int{"bulk": 100, "late": 10, "later": 40, "urgent": 30})
		add(of("urgent", 100, -1))
		want(map[string]int{"bulk": 100, "late": 10, "later": 40, "urgent": 50})
		add(of("bulk", 100, 0))
		want(map[string]int{"bulk": 100, "late": 10, "later": 40, "urgent": 50})
		cancel()
		must(t, <-ended)
		if c, err := b.s.Counts(t.Context()); err != nil || c[queue.Queued] != 440 {
			t.Errorf("afterwards %v, %v", c, err)
		}
	})
}
