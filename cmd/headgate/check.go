package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/internal/config"
)

func (p *process) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Check the gateway's file, and say what would be served",
		Long: `check reads the gateway's file, follows its references to variables and files, and
says what would be served: each org with the ways to it, its limits, its callers, and
when its peak hours begin next. It contacts nobody, and shows no secret.

If anything is wrong with the file, all of it is listed, each with its line, and the
exit code is 2. The file is explained in docs/gateway-config.md.`,
		Example: `  headgate check examples/gateway.yaml`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage("takes one FILE, got %d\nsee: headgate check --help", len(args))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return p.check(args[0], time.Now()) },
	}
}

func (p *process) check(path string, now time.Time) error {
	file, warnings, err := config.Load(path, p.env)
	for _, w := range warnings {
		fmt.Fprintf(p.stderr, "warning: %v\n", w)
	}
	if problems, ok := errors.AsType[config.Errors](err); ok {
		return usage("%s can't be served:\n%w", path, problems)
	}
	if err != nil {
		return usage("%w", err)
	}
	var b strings.Builder
	describeFile(&b, file)
	for i := range file.Orgs {
		describeOrg(&b, &file.Orgs[i], now)
	}
	_, err = io.WriteString(p.stdout, b.String())
	return err
}

// line writes what something is, in two columns.
func line(b *strings.Builder, what, format string, args ...any) {
	fmt.Fprintf(b, "%-13s %s\n", what, fmt.Sprintf(format, args...))
}

func describeFile(b *strings.Builder, f *config.File) {
	line(b, "listens on", "%s, %s", strings.Join(f.Listen, ", "), tlsWords(f))
	line(b, "data", "%s", f.Data)
	operators := make([]string, len(f.Operators))
	for i, o := range f.Operators {
		operators[i] = o.Name
	}
	line(b, "operators", "%s", orNone(operators))
	if len(f.Callbacks.Hosts) > 0 {
		line(b, "callbacks to", "%s", strings.Join(f.Callbacks.Hosts, ", "))
	}
	if f.PublicMetrics {
		line(b, "metrics", "for whoever gets here")
	}
}

func tlsWords(f *config.File) string {
	switch {
	case f.TLS.Cert != "":
		return "with TLS"
	case f.TLSInFront:
		return "with TLS in front"
	}
	return "without TLS"
}

func orNone(words []string) string {
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ", ")
}

func describeOrg(b *strings.Builder, o *config.Org, now time.Time) {
	b.WriteByte('\n')
	if o.PassThrough {
		line(b, "org "+o.Name, "%s, passes callers' tokens through", o.APIURL)
	} else {
		line(b, "org "+o.Name, "%s, logs in as %s", o.APIURL, o.Credentials.ClientID)
	}
	line(b, "  reached by", "%s", orNone(ways(o)))
	if o.Limits == nil {
		from := "asked of the org"
		if o.PassThrough {
			from = "the published ones"
		}
		line(b, "  limits", "%s", from)
	}
	for _, l := range o.Limits {
		line(b, "  limit", "%s: %s", l.Name, limitWords(l))
	}
	for _, p := range o.Peaks {
		line(b, "  peak hours", "%v: %s kept for urgency %d and better; %s", p.Hours, percent(p.Keep), p.Urgent, whenPeak(p, now))
	}
	line(b, "  bounds", "%d held, %d queued with %s", o.Bounds.Held, o.Bounds.Queued, bytesWords(o.Bounds.QueuedBytes))
	for _, c := range o.Callers {
		line(b, "  caller", "%s: weight %v, urgency %s; %d held, %d queued with %s", c.Name, c.Weight, urgencyWords(c), c.Held, c.Queued, bytesWords(c.QueuedBytes))
	}
	if len(o.Callers) == 0 {
		line(b, "  callers", "anybody who gets here")
	}
}

func urgencyWords(c config.Caller) string {
	if c.MostUrgent == 0 {
		return strconv.Itoa(c.Urgency)
	}
	return fmt.Sprintf("%d, never better than %d", c.Urgency, c.MostUrgent)
}

// ways lists how a request can choose an org.
func ways(o *config.Org) (w []string) {
	if o.Path != "" {
		w = append(w, o.Path)
	}
	w = append(w, o.Hosts...)
	if len(o.Callers) > 0 {
		w = append(w, "its callers' keys")
	}
	if o.Default {
		w = append(w, "whatever names no other")
	}
	return w
}

func limitWords(l headgate.Limit) string {
	var w string
	switch {
	case l.Max > 0:
		w = fmt.Sprintf("%d in %v", l.Max, (*span)(&l.Window))
	case l.Rate > 0:
		w = fmt.Sprintf("%s/s, burst %s", fourDigits(l.Rate), fourDigits(l.Burst))
	default:
		w = "not told"
	}
	if l.Learn == headgate.LearnOn {
		w += ", learned"
	}
	if l.Ceiling > 0 {
		w += fmt.Sprintf(", never above %s/s", fourDigits(l.Ceiling))
	}
	w += ", for each " + l.Per.String()
	if l.Match != "" {
		w += ", " + l.Match
	}
	return w
}

// fourDigits writes a number with four digits.
func fourDigits(f float64) string { return strconv.FormatFloat(f, 'g', 4, 64) }

func percent(share float64) string { return fourDigits(100*share) + "%" }

// whenPeak says whether it is a peak now, and until when.
func whenPeak(p config.Peak, now time.Time) string {
	active, until := p.Hours.At(now)
	switch {
	case until.IsZero():
		return "always"
	case active:
		return "now, until " + until.Format("Mon 2 Jan 15:04 MST")
	}
	return "next on " + until.Format("Mon 2 Jan 15:04 MST")
}

func bytesWords(n int64) string {
	for _, unit := range []struct {
		size int64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= unit.size {
			return fourDigits(float64(n)/float64(unit.size)) + " " + unit.name
		}
	}
	return strconv.FormatInt(n, 10) + " bytes"
}
