package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/genesys"
	"github.com/headgate/headgate/internal/config"
	"github.com/headgate/headgate/internal/gateway"
	"github.com/headgate/headgate/internal/telemetry"
)

// door is what the flags of `headgate gateway` say.
type door struct {
	config        string
	emulator      bool
	emulatorLimit rate
	emulatorBurst float64
	listen        string
	data          string
	logLevel      string
	logFormat     string
	lasts         time.Duration
}

func (p *process) gatewayCommand() *cobra.Command {
	d := door{emulatorLimit: rate{n: 50, per: time.Second, text: "50/s"}}
	cmd := &cobra.Command{
		Use:   "gateway",
		Short: "One door to the API for every client: paced, durable, explained",
		Long: `gateway is a proxy in front of the API. Clients in any language send their calls
here as they would to the platform: POST /oauth/token and everything below /api/.
Each call is held until the limit lets it go, sent, sent again where that is safe,
and answered as the platform answers. With "Prefer: respond-async" it is written to
disk and answered with 202 at once; it then survives whatever happens here.

Without --config it serves one org, from GENESYSCLOUD_REGION,
GENESYSCLOUD_OAUTHCLIENT_ID and GENESYSCLOUD_OAUTHCLIENT_SECRET, to this machine
alone. A file names orgs, callers and their keys, limits and bounds: see
docs/gateway.md, and "headgate check FILE". SIGHUP reads the file again, SIGTERM or
Ctrl-C lets what is on the wire end and stops; a second one stops at once.`,
		Example: `  headgate gateway --emulator                     try it, without an account
  curl -H 'Content-Type: application/json' -d '{"n":1}' \
    http://127.0.0.1:8080/api/v2/architect/flows/my-flow/execute
  headgate gateway --config gateway.yaml          many orgs, many callers
  headgate key new --name crm                     a key for a caller`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.gateway(&d) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&d.config, "config", "", "`FILE` with orgs, callers and bounds (YAML); SIGHUP reads it again")
	f.BoolVar(&d.emulator, "emulator", false, "serve an emulation of the API that is built in, for trying it out")
	f.Var(&d.emulatorLimit, "emulator-limit", "with --emulator: the rate of its token bucket")
	f.Float64Var(&d.emulatorBurst, "emulator-burst", 100, "with --emulator: how many its token bucket holds, `N`")
	f.StringVar(&d.listen, "listen", "", "`ADDRESS` to listen on, instead of the file's (default 127.0.0.1:8080)")
	f.StringVar(&d.data, "data", "", "`FOLDER` for what is accepted, instead of the file's (default headgate-data; with --emulator one that goes at the end)")
	f.StringVar(&d.logLevel, "log-level", "info", "`LEVEL` of what is logged: debug, info, warn, error")
	f.StringVar(&d.logFormat, "log-format", "text", "`FORM` of the log: text or json")
	f.DurationVar(&d.lasts, "for", 0, "end after this time (default: until SIGTERM or Ctrl-C)")
	return cmd
}

func (p *process) gateway(d *door) error {
	log, err := d.logger(p)
	if err != nil {
		return err
	}
	if d.emulator && d.config != "" {
		return usage("--emulator and --config: only one of them")
	}
	// From here on a SIGHUP has the file read again, and does not end the
	// process: who sends it need not know how far the start has come.
	hup := make(chan os.Signal, 1)
	if len(hangUp) > 0 {
		signal.Notify(hup, hangUp...)
	}
	file, end, err := d.file(p, log)
	if err != nil {
		return err
	}
	defer end()
	if err := os.MkdirAll(file.Data, 0o700); err != nil {
		return usage("the data folder can't be made: %w", err)
	}
	listeners, c, err := listen(file)
	if err != nil {
		return err
	}
	defer func() {
		for _, l := range listeners {
			l.Close()
		}
	}()
	g, err := gateway.Open(gateway.Config{File: file, Version: version(), Logger: log, Env: p.env})
	if err != nil {
		return &exitError{exitNotAllDone, err}
	}
	scheme := "http"
	if c != nil {
		scheme = "https"
	}
	for _, l := range listeners {
		fmt.Fprintf(p.stderr, "the gateway is on %s://%s, its page on %[1]s://%[2]s/headgate/\n", scheme, l.Addr())
	}
	ctx, abort := p.attendGateway(d.lasts, hup, func() { d.reload(p, g, c, log) })
	err = g.Serve(ctx, abort, listeners, c.config())
	if err := errors.Join(err, g.Close()); err != nil {
		return &exitError{exitNotAllDone, err}
	}
	return nil
}

// attendGateway returns a context that ends with the first signal, or when the
// gateway's time is over, and one that ends with the second. Each signal of hup
// reads the file again.
func (p *process) attendGateway(lasts time.Duration, hup <-chan os.Signal, reload func()) (serve, abort context.Context) {
	serve, stop := context.WithCancel(context.Background())
	abort, end := context.WithCancel(context.Background())
	var over <-chan time.Time
	if lasts > 0 {
		over = time.After(lasts)
	}
	go func() {
		for {
			select {
			case <-hup:
				reload()
			case <-over:
				stop()
			case <-p.signals:
				if serve.Err() != nil {
					end()
					return
				}
				stop()
			}
		}
	}()
	return serve, abort
}

// reload reads the file again, and the certificate that it names. If anything is
// wrong with one of them nothing changes.
func (d *door) reload(p *process, g *gateway.Gateway, c *certificate, log *slog.Logger) {
	if d.config == "" {
		log.Warn("there is no file to read again: the gateway was started without --config")
		return
	}
	file, err := d.takeOver(p, g, c, log)
	if err != nil {
		log.Error("the file was not taken over: what was before goes on", "err", err)
		return
	}
	log.Info("the file was read again", "orgs", len(file.Orgs))
}

func (d *door) takeOver(p *process, g *gateway.Gateway, c *certificate, log *slog.Logger) (*config.File, error) {
	file, err := d.read(p, log)
	if err != nil {
		return nil, err
	}
	if err := d.override(file); err != nil {
		return nil, err
	}
	next, err := readCertificate(file.TLS)
	switch {
	case err != nil:
		return nil, err
	case (next == nil) != (c == nil):
		return nil, errors.New("tls can't be begun or ended while the gateway runs: restart it")
	}
	if err := g.Reload(file); err != nil {
		return nil, err
	}
	if next != nil {
		c.pair.Store(next.pair.Load())
	}
	return file, nil
}

// read reads the file.
func (d *door) read(p *process, log *slog.Logger) (*config.File, error) {
	file, warnings, err := config.Load(d.config, p.env)
	if err != nil {
		return nil, usage("%w", err)
	}
	for _, w := range warnings {
		log.Warn(w.String())
	}
	return file, nil
}

// file finds out what is to be served: what the file says, one org from the
// environment, or the built-in emulator. end is called at the end.
func (d *door) file(p *process, log *slog.Logger) (file *config.File, end func(), err error) {
	end = func() {}
	switch {
	case d.emulator:
		file, end, err = d.emulated(p)
	case d.config != "":
		file, err = d.read(p, log)
	default:
		if file, _, err = config.FromEnv(p.env); err != nil {
			err = usage("%w\nor name a file: --config FILE, or try it without an account: --emulator", err)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	if err := d.override(file); err != nil {
		end()
		return nil, nil, err
	}
	return file, end, nil
}

// override puts what the command line says in place of what file says.
func (d *door) override(file *config.File) error {
	if d.data != "" {
		file.Data = d.data
	}
	if d.listen == "" {
		return nil
	}
	if err := file.ListenOn(d.listen); err != nil {
		hint := ""
		if d.config == "" {
			hint = "\nwhat it takes stands in a file: --config FILE"
		}
		return usage("--listen %s: %w%s", d.listen, err, hint)
	}
	return nil
}

// emulated makes a file with one org, which is the built-in emulator.
func (d *door) emulated(p *process) (*config.File, func(), error) {
	if !(d.emulatorBurst >= 1 && d.emulatorBurst <= 1e9) {
		return nil, nil, usage("--emulator-burst %v: takes a number of at least 1", d.emulatorBurst)
	}
	e, err := startEmulator(d.emulatorLimit.perSecond(), d.emulatorBurst)
	if err != nil {
		return nil, nil, err
	}
	end := func() {
		e.server.Close()
		e.report(p.stderr)
	}
	file := config.Single(config.Org{
		Name: "emulator", APIURL: e.url, LoginURL: e.url, Credentials: e.credentials(),
		Limits: []headgate.Limit{genesys.TokenLimit(d.emulatorLimit.perSecond(), d.emulatorBurst), genesys.LoginLimit()},
	})
	if d.data == "" {
		// The emulator forgets everything as well.
		file.Data, err = os.MkdirTemp("", "headgate-")
		folder, close := file.Data, end
		end = func() {
			close()
			os.RemoveAll(folder)
		}
	}
	if err != nil {
		end()
		return nil, nil, usage("--emulator: %w", err)
	}
	fmt.Fprintf(p.stderr, "the emulator is on %s: %s, burst %v\n", e.url, d.emulatorLimit.String(), d.emulatorBurst)
	return file, end, nil
}

// certificate is what the gateway shows of itself. The next connection gets the
// newest.
type certificate struct {
	pair atomic.Pointer[tls.Certificate]
}

// readCertificate reads a certificate and its key; nil if the file names none.
func readCertificate(files config.TLS) (*certificate, error) {
	if files.Cert == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		return nil, usage("tls: %w", err)
	}
	c := new(certificate)
	c.pair.Store(&pair)
	return c, nil
}

// config is nil without a certificate.
func (c *certificate) config() *tls.Config {
	if c == nil {
		return nil
	}
	return &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.pair.Load(), nil },
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
	}
}

// listen opens what the file says to listen on.
func listen(file *config.File) (listeners []net.Listener, c *certificate, err error) {
	if c, err = readCertificate(file.TLS); err != nil {
		return nil, nil, err
	}
	for _, address := range file.Listen {
		l, err := net.Listen("tcp", address)
		if err != nil {
			for _, l := range listeners {
				l.Close()
			}
			return nil, nil, usage("can't listen on %s: %w", address, err)
		}
		listeners = append(listeners, l)
	}
	return listeners, c, nil
}

// logger makes the log that the flags ask for.
func (d *door) logger(p *process) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(d.logLevel)); err != nil {
		return nil, usage("--log-level %q: takes debug, info, warn or error", d.logLevel)
	}
	options := &slog.HandlerOptions{Level: level}
	switch d.logFormat {
	case "text":
		return slog.New(telemetry.Redact(slog.NewTextHandler(p.stderr, options))), nil
	case "json":
		return slog.New(telemetry.Redact(slog.NewJSONHandler(p.stderr, options))), nil
	}
	return nil, usage("--log-format %q: takes text or json", d.logFormat)
}
