package main

import (
	"encoding"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/emulator"
)

// emulation is what the flags of `headgate emulate` say.
type emulation struct {
	listen, admin string
	limits        []string
	faults        []string
	loginLimit    string
	lasts         time.Duration
	retryAfter    string
	message       string
	endpoints     string
	config        emulator.Config
}

func (p *process) emulateCommand() *cobra.Command {
	var e emulation
	cmd := &cobra.Command{
		Use:   "emulate",
		Short: "Serve an emulation of the API, with its limits and its faults",
		Long: `emulate serves an emulation of the platform's API on this machine: login, both
forms of flow execution, the limits API and the exact 429, with faults on demand.
It keeps a ledger and, when it ends (Ctrl-C, or --for), prints a report: what was
executed, doubled, rejected, sent too early, and how the time compares with what the
limit allowed.

It accepts the client id ` + emulator.DefaultClientID + ` with the secret ` + emulator.DefaultClientSecret + `.

A LIMIT is a rate and options:     50/s,burst=100
                                   300/min,algorithm=fixed,per=token
  algorithm=bucket|fixed|sliding   a token bucket (default), or a window
  burst=N                          how many the bucket holds
  phase=D                          fixed windows follow each other by the clock; the
                                   first is D old when the first request comes
  per=token|client|org|path        what is counted apart (default token)
  match=PATH                       which requests, such as /api/v2/flows/**
  name=KEY                         how the 429 calls it

A FAULT is a kind and options:     outage,from=10s,to=15s
                                   cut-after,share=0.02
  unavailable, unavailable-silent  503 with a Retry-After, and without
  internal-error, bad-gateway, gateway-timeout
                                   500, 502, 504
  cut-before, cut-after            the connection ends, before or after executing
  outage                           503 until to=D, and a Retry-After that says so;
                                   with cut, connections are closed instead
  slow                             answers take delay=D longer
  traffic                          others draw rate=RATE from limit=KEY
  change                           limit=KEY gets a new rate=RATE and burst=N
  from=D to=D                      when, counted from the first request
  share=0..1                       how many of the requests
  match=PATH, logins               which of them; logins too
  retry-after=D                    what unavailable says; more: docs/emulator.md`,
		Example: `  headgate emulate --limit 50/s,burst=100 --fault outage,from=10s,to=15s
  GENESYSCLOUD_OAUTHCLIENT_ID=` + emulator.DefaultClientID + ` GENESYSCLOUD_OAUTHCLIENT_SECRET=` + emulator.DefaultClientSecret + ` \
    headgate run --api-url http://127.0.0.1:8080 --login-url http://127.0.0.1:8080 rows.jsonl`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return p.emulate(&e) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&e.listen, "listen", "127.0.0.1:8080", "`ADDRESS` of the login and the API")
	f.StringVar(&e.admin, "admin", "127.0.0.1:8081", "`ADDRESS` of the report (/report.txt, /report, /ledger); empty for none")
	f.StringArrayVar(&e.limits, "limit", nil, "a `LIMIT`, see above; may be given several times (default 50/s,burst=100)")
	f.StringArrayVar(&e.faults, "fault", nil, "a `FAULT`, see above; may be given several times")
	f.StringVar(&e.loginLimit, "login-limit", "", "a `LIMIT` for logins, refused with 400 (default none)")
	f.StringVar(&e.retryAfter, "retry-after", "ceil", "`FORM` of Retry-After: ceil, exact, date, fluctuating, short, short-whole, zero, huge, garbage, absent")
	f.StringVar(&e.message, "message", "same", "`FORM` of the seconds in the 429's message: same, real, none, older")
	f.BoolVar(&e.config.HideLimit, "hide-limit", false, "leave the limit's name out of the 429")
	f.StringVar(&e.endpoints, "endpoints", "both", "`FORMS` of flow execution that exist: both, execute, launch")
	f.DurationVar(&e.config.Latency, "latency", 0, "how long an execution takes to be answered")
	f.DurationVar(&e.config.Jitter, "jitter", 0, "the latency grows by something between 0 and this")
	f.DurationVar(&e.config.RunTime, "run-time", 2*time.Second, "how long a launched flow runs")
	f.DurationVar(&e.config.TokenLifetime, "token-lifetime", 0, "how long a token is good for (default 24h)")
	f.DurationVar(&e.config.LoginLatency, "login-latency", 0, "how long a login takes")
	f.IntVar(&e.config.Expected, "expected", 0, "`N` executions should come: the report counts those that did not as lost")
	f.Uint64Var(&e.config.Seed, "seed", 0, "`N` from which all that is random comes: the same one gives the same run")
	f.DurationVar(&e.lasts, "for", 0, "end after this time (default: until Ctrl-C)")
	return cmd
}

func (p *process) emulate(e *emulation) error {
	config, err := e.parse()
	if err != nil {
		return err
	}
	srv, err := emulator.New(config)
	if err != nil {
		return usage("%w", err)
	}
	failed := make(chan error, 2)
	for _, s := range []struct {
		name, addr string
		handler    http.Handler
	}{{"API", e.listen, srv.API()}, {"report", e.admin, srv.Admin()}} {
		if s.addr == "" {
			continue
		}
		l, err := net.Listen("tcp", s.addr)
		if err != nil {
			return usage("can't serve the %s: %w", s.name, err)
		}
		server := &http.Server{Handler: s.handler, ReadHeaderTimeout: 10 * time.Second}
		defer server.Close()
		go func() { failed <- server.Serve(l) }()
		fmt.Fprintf(p.stderr, "%s on http://%s\n", s.name, l.Addr())
	}
	var over <-chan time.Time
	if e.lasts > 0 {
		t := time.NewTimer(e.lasts)
		defer t.Stop()
		over = t.C
	}
	select {
	case <-p.signals:
	case <-over:
	case err = <-failed:
		return &exitError{exitNotAllDone, err}
	}
	fmt.Fprint(p.stdout, srv.Report())
	return nil
}

// parse fills the config from the flags that need reading.
func (e *emulation) parse() (emulator.Config, error) {
	c := e.config
	c.RetryAfter = emulator.RetryAfterMode(e.retryAfter)
	c.Message = emulator.MessageForm(e.message)
	c.Endpoints = emulator.Endpoints(e.endpoints)
	if len(e.limits) == 0 {
		e.limits = []string{"50/s,burst=100"}
	}
	for _, spec := range e.limits {
		limit, err := parseEmulatedLimit(spec)
		if err != nil {
			return c, usage("--limit %s: %w", spec, err)
		}
		c.Limits = append(c.Limits, limit)
	}
	if e.loginLimit != "" {
		limit, err := parseEmulatedLimit(e.loginLimit)
		if err != nil {
			return c, usage("--login-limit %s: %w", e.loginLimit, err)
		}
		if limit.Per == "" {
			limit.Per = emulator.PerClient
		}
		c.LoginLimit = limit
	}
	for _, spec := range e.faults {
		fault, err := parseFault(spec)
		if err != nil {
			return c, usage("--fault %s: %w", spec, err)
		}
		c.Script = append(c.Script, fault)
	}
	return c, nil
}

// parseEmulatedLimit reads "50/s,burst=100".
func parseEmulatedLimit(spec string) (emulator.Limit, error) {
	rate, options, _ := strings.Cut(spec, ",")
	n, per, err := headgate.ParseRate(rate)
	if err != nil {
		return emulator.Limit{}, err
	}
	var l emulator.Limit
	err = parseOptions(options, map[string]any{
		"burst": &l.Burst, "algorithm": (*string)(&l.Algorithm), "per": (*string)(&l.Per),
		"name": &l.Name, "match": &l.Match, "phase": &l.Phase,
	})
	if l.Algorithm == emulator.Fixed || l.Algorithm == emulator.Sliding {
		l.Max, l.Window = int(n), per
		if float64(l.Max) != n {
			return l, fmt.Errorf("a window takes a whole number, not %v", n)
		}
	} else {
		l.Rate = n / per.Seconds()
	}
	return l, err
}

// parseFault reads "outage,from=10s,to=15s".
func parseFault(spec string) (emulator.Fault, error) {
	kind, options, _ := strings.Cut(spec, ",")
	f := emulator.Fault{Kind: emulator.FaultKind(kind)}
	var rate perSecond
	err := parseOptions(options, map[string]any{
		"from": &f.From, "to": &f.To, "share": &f.Share, "match": &f.Match, "logins": &f.Logins,
		"retry-after": &f.RetryAfter, "cut": &f.Cut, "delay": &f.Delay, "executes": &f.Executes,
		"limit": &f.Limit, "rate": &rate, "burst": &f.Burst, "max": &f.Max, "window": &f.Window,
	})
	if f.Kind == emulator.Traffic {
		f.PerSecond = float64(rate)
	} else {
		f.Rate = float64(rate)
	}
	return f, err
}

// perSecond is a rate with a unit.
type perSecond float64

func (r *perSecond) UnmarshalText(text []byte) error {
	n, per, err := headgate.ParseRate(string(text))
	*r = perSecond(n / per.Seconds())
	return err
}

// parseOptions reads "a=1,b" into what the names point to.
func parseOptions(s string, into map[string]any) error {
	if s == "" {
		return nil
	}
	for option := range strings.SplitSeq(s, ",") {
		name, value, given := strings.Cut(option, "=")
		target, ok := into[name]
		if !ok {
			return fmt.Errorf("unknown option %q", name)
		}
		var err error
		switch t := target.(type) {
		case *bool:
			*t = true
			if given {
				err = errors.New("takes no value")
			}
		case *string:
			*t = value
		case *float64:
			*t, err = strconv.ParseFloat(value, 64)
		case *int:
			*t, err = strconv.Atoi(value)
		case *time.Duration:
			*t, err = time.ParseDuration(value)
		case encoding.TextUnmarshaler:
			err = t.UnmarshalText([]byte(value))
		}
		if err != nil {
			return fmt.Errorf("option %s: %w", name, err)
		}
	}
	return nil
}
