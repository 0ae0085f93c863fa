package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate/bench/contender"
	"github.com/headgate/headgate/emulator"
)

// cell is one contender in one scenario, once.
type cell struct {
	scenario  *Scenario
	contender contender.Contender
	run       int // from 1
}

func (c cell) String() string {
	return fmt.Sprintf("%s/%s/%d", c.scenario.Name, c.contender.ID, c.run)
}

// why says why a contender has no part in a scenario, or nothing.
func (c cell) why() string {
	switch {
	case c.contender.Knows == contender.TheLimit && c.scenario.Told == nil:
		return "needs a limit to be told"
	case c.contender.Knows == contender.SomeFiction && c.scenario.Wrong == nil:
		return "nothing wrong to tell"
	}
	return ""
}

// outcome is what came of a cell, as the server saw it.
type outcome struct {
	cell
	// span is from when the callers were let go to the last call that the
	// server accepted, ideal the shortest for as many as were executed.
	span, ideal time.Duration
	accepted    int64
	refused     int64 // 429
	unavailable int64 // 503
	early       int64
	lost        int64
	doubled     int64
	unfinished  int64   // calls that the deadline cut short
	others      int64   // what others drew
	fairness    float64 // Jain's, of the busy processes; 0 if there are not several
	series      series
}

// ratio is span / ideal, or 0 if nothing was executed.
func (o *outcome) ratio() float64 {
	if o.ideal <= 0 {
		return 0
	}
	return o.span.Seconds() / o.ideal.Seconds()
}

// perAccepted is how many 429s came for each call that was accepted.
func (o *outcome) perAccepted() float64 {
	return float64(o.refused) / float64(max(1, o.accepted))
}

// ledgerRows is how many requests of a run are kept for its picture and for
// fairness. The other figures are exact whatever is kept.
const ledgerRows = 250_000

// earlyGrace excuses what was on its way when a Retry-After was announced, such
// as a request whose connection was still being made. It is more than the
// emulator's own, because many runs share the machine, and still far less than
// the second that a Retry-After is at least: who ignores one is seen.
const earlyGrace = 250 * time.Millisecond

// stopGrace is how long a client may take to return when its time is over.
const stopGrace = 5 * time.Second

// play runs a cell: a server of its own on loopback, and a client for each
// process. An error means that the contest could not be held or is not to be
// trusted; a client that does badly is an outcome.
func (c cell) play(ctx context.Context, redis string) (*outcome, error) {
	s := c.scenario
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening on loopback: %w", err)
	}
	var pools []*http.Transport
	var clients []contender.Client
	defer func() {
		for _, client := range clients {
			if closer, ok := client.(io.Closer); ok {
				closer.Close()
			}
		}
		for _, pool := range pools {
			pool.CloseIdleConnections()
		}
	}()
	for range s.Processes {
		pool := &http.Transport{MaxIdleConnsPerHost: s.Callers, DisableCompression: true}
		pools = append(pools, pool)
		setup := contender.Setup{
			Base: pool, Name: s.Limits[0].Name, Per: string(s.Limits[0].Per),
			Processes: s.Processes, Redis: redis, Key: c.String(),
		}
		switch c.contender.Knows {
		case contender.TheLimit:
			setup.Told = s.Told
		case contender.SomeFiction:
			setup.Told = s.Wrong
		}
		client, err := c.contender.New(setup)
		if err != nil {
			ln.Close()
			return nil, fmt.Errorf("making %s: %w", c.contender.ID, err)
		}
		clients = append(clients, client)
	}

	config := s.config(uint64(c.run))
	config.LedgerRows = ledgerRows
	config.EarlyGrace = earlyGrace
	srv, err := emulator.New(config)
	if err != nil {
		ln.Close()
		return nil, err
	}
	server := &http.Server{Handler: srv.API(), ErrorLog: log.New(io.Discard, "", 0)}
	go server.Serve(ln)
	defer server.Close()

	ctx, cancel := context.WithTimeout(ctx, s.Deadline)
	defer cancel()
	var done, unfinished atomic.Int64
	var callers sync.WaitGroup
	for p := range s.Busy {
		var next atomic.Int64
		for range s.Callers {
			callers.Go(func() {
				for i := next.Add(1); i <= int64(s.Calls); i = next.Add(1) {
					if ctx.Err() != nil {
						unfinished.Add(1)
						continue
					}
					status, err := clients[p].Do(ctx, contender.Call{
						URL:    "http://" + ln.Addr().String() + "/api/v2/architect/flows/contest/execute",
						Bearer: fmt.Sprintf("process-%d", p),
						Body:   fmt.Appendf(nil, `{"process":%d,"call":%d}`, p, i),
					})
					switch {
					case err == nil && status == http.StatusOK:
						done.Add(1)
					case ctx.Err() != nil:
						unfinished.Add(1)
					}
				}
			})
		}
	}
	returned := make(chan struct{})
	go func() { callers.Wait(); close(returned) }()
	select {
	case <-returned:
	case <-ctx.Done():
		select {
		case <-returned:
		case <-time.After(stopGrace):
			return nil, fmt.Errorf("%v did not return within %v of being told to", c, stopGrace)
		}
	}
	if err := ctx.Err(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return nil, err
	}

	r := srv.Report()
	if done.Load() > r.Distinct {
		return nil, fmt.Errorf("%v reports %d calls done, its server has executed %d", c, done.Load(), r.Distinct)
	}
	o := &outcome{
		cell:     c,
		accepted: r.Accepted, refused: r.Rejected, unavailable: r.ByStatus[http.StatusServiceUnavailable],
		early: r.Early, lost: r.Lost, doubled: r.Doubled, unfinished: unfinished.Load(),
	}
	for _, l := range r.Limits {
		o.others += l.Other
	}
	if o.ideal, _ = s.ideal(int(r.Distinct)); r.Distinct == 0 {
		o.ideal = 0
	}
	o.read(srv.Ledger(), r)
	return o, nil
}
