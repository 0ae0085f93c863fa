package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/headgate/headgate/bench/contender"
)

// results is what a contest was held on and what came of it.
type results struct {
	contest  *contest
	where    []line // the machine, the date, the versions
	outcomes []*outcome
	cut      string // why it is not whole; empty if it is
}

// line is a name and what it is.
type line struct{ name, value string }

// runsOf returns the runs of one contender in one scenario.
func (r *results) runsOf(s *Scenario, who contender.Contender) []*outcome {
	var runs []*outcome
	for _, o := range r.outcomes {
		if o.scenario == s && o.contender.ID == who.ID {
			runs = append(runs, o)
		}
	}
	return runs
}

// held returns the scenarios in which somebody played.
func (r *results) held() []*Scenario {
	var held []*Scenario
	for i := range r.contest.scenarios {
		s := &r.contest.scenarios[i]
		for _, o := range r.outcomes {
			if o.scenario == s {
				held = append(held, s)
				break
			}
		}
	}
	return held
}

// header of the table of a scenario; rows have as many cells.
var header = []string{"contender", "span", "span/ideal", "429s per accepted", "503s", "early", "lost", "doubled", "fairness"}

// row is what the table says of a contender, or nil if it has no part.
func (r *results) row(s *Scenario, who contender.Contender) []string {
	runs := r.runsOf(s, who)
	if len(runs) == 0 {
		return nil
	}
	f := summarize(runs)
	row := []string{who.Title, fmt.Sprintf("%.2f s", f.span.Seconds()), fmt.Sprintf("%.3f", f.ratio), percent(f.perAccepted),
		strconv.FormatFloat(f.unavailable, 'f', -1, 64), count(f.early), count(f.lost), count(f.doubled), "–"}
	if f.cut > 0 {
		row[6] += fmt.Sprintf(" (%d by the deadline)", f.cut)
	}
	if s.Busy > 1 {
		row[8] = fmt.Sprintf("%.2f", f.fairness)
	}
	return row
}

func count(n int64) string { return strconv.FormatInt(n, 10) }

// percent writes a share with as many digits as it deserves.
func percent(x float64) string {
	switch x *= 100; {
	case x == 0:
		return "0 %"
	case x < 10:
		return strconv.FormatFloat(x, 'f', 1, 64) + " %"
	default:
		return strconv.FormatFloat(x, 'f', 0, 64) + " %"
	}
}

// facts is what is said above the table of a scenario.
func facts(s *Scenario) string {
	n := s.Busy * s.Calls
	ideal, _ := s.ideal(n)
	who := fmt.Sprintf("%d calls by %d callers", n, s.Busy*s.Callers)
	if s.Processes > 1 {
		who += fmt.Sprintf(" in %d of %d processes", s.Busy, s.Processes)
	}
	return fmt.Sprintf("%s; ideal %.2f s, deadline %v", who, ideal.Seconds(), s.Deadline.Round(time.Second))
}

// text writes the tables for a terminal.
func (r *results) text(w io.Writer) error {
	var b strings.Builder
	for _, s := range r.held() {
		fmt.Fprintf(&b, "%s (%s)\n%s\n%s\n\n", s.Title, s.Name, s.About, facts(s))
		tab := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		fmt.Fprintln(tab, "  "+strings.Join(header, "\t"))
		for _, who := range r.contest.contenders {
			if row := r.row(s, who); row != nil {
				fmt.Fprintln(tab, "  "+strings.Join(row, "\t"))
			}
		}
		tab.Flush()
		b.WriteByte('\n')
	}
	for _, l := range r.where {
		fmt.Fprintf(&b, "%s: %s\n", l.name, l.value)
	}
	if r.cut != "" {
		fmt.Fprintln(&b, r.cut)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// markdown writes the same for a page, with a picture of each scenario.
func (r *results) markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprint(&b, "# The contest\n\nWritten by `make contest`; [how to read it](../README.md#reading-the-table). What stands here was seen by the server.\n\n")
	if r.cut != "" {
		fmt.Fprintf(&b, "**%s**\n\n", r.cut)
	}
	for _, l := range r.where {
		fmt.Fprintf(&b, "- %s: %s\n", l.name, l.value)
	}
	b.WriteString("\n## All at a glance\n\nspan/ideal · 429s per accepted · lost, where calls were. Empty: it has no part there.\n\n")
	held := r.held()
	b.WriteString("| |")
	var played []contender.Contender
	for _, who := range r.contest.contenders {
		for _, o := range r.outcomes {
			if o.contender.ID == who.ID {
				played = append(played, who)
				b.WriteString(" " + who.Title + " |")
				break
			}
		}
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(played)) + "\n")
	for _, s := range held {
		fmt.Fprintf(&b, "| [%s](#%s) |", s.Title, s.Name)
		for _, who := range played {
			b.WriteString(" " + r.glance(s, who) + " |")
		}
		b.WriteByte('\n')
	}
	for _, s := range held {
		fmt.Fprintf(&b, "\n<a id=\"%s\"></a>\n## %s\n\n%s\n%s.\n\n", s.Name, s.Title, s.About, facts(s))
		b.WriteString("| " + strings.Join(header, " | ") + " |\n|---" + strings.Repeat("|--:", len(header)-1) + "|\n")
		for _, who := range r.contest.contenders {
			if row := r.row(s, who); row != nil {
				b.WriteString("| " + strings.Join(row, " | ") + " |\n")
			}
		}
		fmt.Fprintf(&b, "\n![%s: calls over time](%s.svg)\n", s.Title, s.Name)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// glance is a contender in a scenario in a few characters.
func (r *results) glance(s *Scenario, who contender.Contender) string {
	runs := r.runsOf(s, who)
	if len(runs) == 0 {
		return ""
	}
	f := summarize(runs)
	text := fmt.Sprintf("%.2f · %s", f.ratio, percent(f.perAccepted))
	if f.lost > 0 {
		text += fmt.Sprintf(" · lost %d", f.lost)
	}
	return text
}

// csv writes every run.
func (r *results) csv(w io.Writer) error {
	out := csv.NewWriter(w)
	out.Write([]string{"scenario", "contender", "run", "calls", "span_s", "ideal_s", "span_per_ideal", "accepted", "status_429", "status_503",
		"status_429_per_accepted", "early", "lost", "doubled", "cut_by_deadline", "others", "fairness"})
	decimals := func(x float64, n int) string { return strconv.FormatFloat(x, 'f', n, 64) }
	for _, s := range r.held() {
		for _, who := range r.contest.contenders {
			for _, o := range r.runsOf(s, who) {
				fairness := ""
				if s.Busy > 1 {
					fairness = decimals(o.fairness, 4)
				}
				out.Write([]string{s.Name, who.ID, strconv.Itoa(o.run), strconv.Itoa(s.Busy * s.Calls), decimals(o.span.Seconds(), 3), decimals(o.ideal.Seconds(), 3), decimals(o.ratio(), 4),
					count(o.accepted), count(o.refused), count(o.unavailable), decimals(o.perAccepted(), 5), count(o.early), count(o.lost), count(o.doubled), count(o.unfinished), count(o.others), fairness})
			}
		}
	}
	out.Flush()
	return out.Error()
}
