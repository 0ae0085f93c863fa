// Command headgate executes calls against a rate-limited API as fast as its
// limit allows, and never faster. Run it without arguments for what it can do.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	p := process{
		args: os.Args[1:], env: os.Getenv, signals: signals,
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
	}
	os.Exit(p.run())
}

// process is what the command gets from the operating system.
type process struct {
	args    []string
	env     func(string) string
	signals <-chan os.Signal
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer
}

// Exit codes. They are part of the interface: docs/run.md.
const (
	exitDone        = 0
	exitNotAllDone  = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitInterrupted = 130
)

// exitError is an error with the exit code that it leads to. Without an error
// in it, everything has been said.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usage is an error in what the user gave us: nothing was sent.
func usage(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

func (p *process) run() int {
	root := &cobra.Command{
		Use:   "headgate",
		Short: "Execute calls against a rate-limited API as fast as its limit allows, and never faster",
		Long: `headgate executes calls against an API that a token bucket guards (first: flow
executions on Genesys Cloud), as fast as the bucket refills and never faster.
Nothing is rejected that pacing could have saved, and nothing accepted is lost.`,
		Example: `  headgate run --emulator examples/executions.jsonl    try it, without an account
  headgate run --region eu-central-1 rows.jsonl        execute every row of a file
  headgate emulate --limit 50/s,burst=100              an API to test a client against
  headgate simulate --per-day 200000                   how long would calls wait?`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetArgs(p.args)
	root.SetIn(p.stdin)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage("%w\nsee: %s --help", err, c.CommandPath())
	})
	root.AddCommand(p.runCommand(), p.gatewayCommand(), p.emulateCommand(), p.simulateCommand(), p.checkCommand(), p.keyCommand())
	err := root.ExecuteContext(context.Background())
	if err == nil {
		return exitDone
	}
	code := exitUsage // what cobra itself finds wrong
	var exit *exitError
	if errors.As(err, &exit) {
		code = exit.code
	}
	if text := err.Error(); text != "" {
		fmt.Fprintf(p.stderr, "headgate: %s\n", text)
	}
	return code
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
