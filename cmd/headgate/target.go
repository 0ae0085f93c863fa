package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/headgate/headgate/emulator"
	"github.com/headgate/headgate/genesys"
)

// target is where the requests go.
type target struct {
	name     string // as the journal keeps it
	config   genesys.Config
	emulator *emulator.Server // nil for a real API
	server   *http.Server
}

func (t *target) close() {
	if t != nil && t.server != nil {
		t.server.Close()
	}
}

// address checks a URL that a flag gives and writes it in the one way in which
// it is compared and stored. Its messages never repeat what was given: there
// may be a password in it.
func address(flag, given string) (string, error) {
	u, err := url.Parse(given)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return "", usage("--%s: takes an address such as https://api.mypurecloud.ie", flag)
	case u.User != nil:
		return "", usage("--%s: must not hold a user or a password; credentials come from the environment", flag)
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(given, "#"):
		return "", usage("--%s: takes an address without a query (?…) or a fragment (#…)", flag)
	}
	u.Host = strings.ToLower(u.Host)
	if port := u.Port(); port == "" || u.Scheme == "http" && port == "80" || u.Scheme == "https" && port == "443" {
		u.Host = strings.TrimSuffix(u.Host, ":"+port)
	}
	return strings.TrimRight(u.String(), "/"), nil
}

// addresses normalises --api-url and --login-url.
func (f *runFlags) addresses() (err error) {
	if f.apiURL != "" {
		if f.apiURL, err = address("api-url", f.apiURL); err != nil {
			return err
		}
	}
	if f.loginURL != "" {
		f.loginURL, err = address("login-url", f.loginURL)
	}
	return err
}

// target finds out where to send and with which credentials.
func (f *runFlags) target(env func(string) string) (*target, error) {
	if f.emulator {
		return f.emulated()
	}
	credentials, err := genesys.CredentialsFromEnv()
	var missing *genesys.EnvError
	if errors.As(err, &missing) {
		// The region may come from a flag.
		if len(missing.Missing) == 1 && missing.Missing[0] == genesys.EnvRegion && (f.region != "" || f.apiURL != "") {
			err = nil
		}
	}
	if err != nil {
		return nil, &exitError{exitUnreachable, errors.Join(err, errors.New("or try it without an account: --emulator"))}
	}
	config := genesys.Config{Credentials: credentials, Region: f.region, APIURL: f.apiURL, LoginURL: f.loginURL}
	name := f.apiURL
	if name == "" {
		given := f.region
		if given == "" {
			given = credentials.Region
		}
		region, err := genesys.LookupRegion(given)
		if err != nil {
			return nil, usage("%w", err)
		}
		name = region.APIURL()
	}
	return &target{name: name, config: config}, nil
}

// emulated starts an emulator in this process.
func (f *runFlags) emulated() (*target, error) {
	e, err := startEmulator(f.emulatorLimit.perSecond(), f.emulatorBurst)
	if err != nil {
		return nil, err
	}
	return &target{
		name:     "emulator",
		emulator: e.srv,
		server:   e.server,
		config: genesys.Config{
			Credentials: e.credentials(),
			APIURL:      e.url, LoginURL: e.url,
			Org: "emulator",
		},
	}, nil
}

// builtin is an emulator in this process.
type builtin struct {
	srv    *emulator.Server
	server *http.Server
	url    string
}

func (e *builtin) credentials() genesys.Credentials {
	return genesys.Credentials{ClientID: emulator.DefaultClientID, ClientSecret: genesys.NewSecret(emulator.DefaultClientSecret)}
}

// startEmulator serves an emulator with a token bucket until its server is
// closed.
func startEmulator(rate, burst float64) (*builtin, error) {
	srv, err := emulator.New(emulator.Config{
		Limits:       []emulator.Limit{{Name: genesys.LimitToken, Rate: rate, Burst: burst}},
		LoginLatency: 300 * time.Millisecond,
		Latency:      30 * time.Millisecond,
		Jitter:       60 * time.Millisecond,
	})
	if err != nil {
		return nil, usage("--emulator: %w", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, &exitError{exitUnreachable, err}
	}
	e := &builtin{
		srv: srv, url: "http://" + l.Addr().String(),
		server: &http.Server{Handler: srv.API(), ReadHeaderTimeout: 10 * time.Second},
	}
	go e.server.Serve(l) // ends with Close
	return e, nil
}

// report says what the emulator saw, and how its limit was used: the span is from
// the first call that it let through to the last, without the login. If none came
// there is nothing to say.
func (e *builtin) report(w io.Writer) {
	r := e.srv.Report()
	if r.Arrivals == 0 {
		return
	}
	fmt.Fprintln(w, emulatorSaw(r))
	for _, l := range r.Limits {
		fmt.Fprintf(w, "its limit let %d through in %.2f s: %.2f s at best\n", l.Accepted, l.Span.Seconds(), l.Ideal.Seconds())
	}
}

func emulatorSaw(r emulator.Report) string {
	return fmt.Sprintf("the emulator saw: %d executed, %d doubled, %d refused, %d early, at most %d in any 100 ms",
		r.Executed, r.Doubled, r.Rejected, r.Early, r.Peak)
}

// transport returns what makes the attempts. It keeps as many connections as
// may be in use, so that no call waits for a handshake that was made before.
func transport(concurrency int) *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConns = concurrency
	t.MaxIdleConnsPerHost = concurrency
	return t
}
