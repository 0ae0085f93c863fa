package schedule

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ParseZone reads the name of a time zone, such as Europe/Paris. The machine's own
// is not taken: what a file says must not depend on where it is read.
func ParseZone(name string) (*time.Location, error) {
	zone, err := time.LoadLocation(name)
	if err != nil || name == "" || name == "Local" {
		return nil, fmt.Errorf("%.64q is not a time zone: write a name such as Europe/Paris, America/New_York or UTC", name)
	}
	return zone, nil
}

// ParseSpan reads days and hours: "Mon-Fri 09:00-12:00", "Mon,Wed 8-10",
// "Fri 22:00-02:00", "daily 00:00-24:00". The days are those on which the hours
// begin; a range of days may go over the end of the week, hours may go over
// midnight.
func ParseSpan(text string) (s Span, err error) {
	days, hours, ok := strings.Cut(strings.TrimSpace(text), " ")
	if !ok {
		return s, fmt.Errorf("%.64q is not hours of the week: write days and from when to when, as in Mon-Fri 09:00-12:00 or daily 22:00-06:00", text)
	}
	if s.days, err = parseDays(days); err != nil {
		return Span{}, err
	}
	from, to, ok := strings.Cut(hours, "-")
	if !ok {
		return Span{}, fmt.Errorf("%.64q: write from when to when, as in 09:00-12:00", hours)
	}
	if s.from, err = parseClock(from); err == nil {
		s.to, err = parseClock(to)
	}
	switch {
	case err != nil:
		return Span{}, err
	case s.from == day:
		return Span{}, fmt.Errorf("%.64q begins at 24:00: write 00:00 of the day after", hours)
	case s.from == s.to || s.from == 0 && s.to == 0:
		return Span{}, fmt.Errorf("%.64q has no length: a whole day is 00:00-24:00", hours)
	case s.to == 0: // midnight, at the end of the same day
		s.to = day
	}
	return s, nil
}

var dayNames = [7]string{"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"}

// parseDays reads "Mon-Fri", "Mon,Wed,Fri" or "daily".
func parseDays(text string) (days [7]bool, err error) {
	if strings.EqualFold(text, "daily") {
		return [7]bool{true, true, true, true, true, true, true}, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, to := weekday(first), weekday(last)
		if from < 0 || to < 0 {
			return days, fmt.Errorf("%.64q is not a day: write Mon, Tue, Wed, Thu, Fri, Sat, Sun, a range such as Mon-Fri, a list such as Mon,Wed, or daily", part)
		}
		for days[from] = true; from != to; {
			from = (from + 1) % 7
			days[from] = true
		}
	}
	return days, nil
}

// weekday reads the name of a day, whole or of three letters. It is -1 for
// anything else.
func weekday(text string) int {
	text = strings.ToLower(text)
	return slices.IndexFunc(dayNames[:], func(name string) bool { return text == name || text == name[:3] })
}

// parseClock reads "9", "09:30" or "24:00".
func parseClock(text string) (clock, error) {
	hour, minute, given := strings.Cut(strings.TrimSpace(text), ":")
	h, err := strconv.ParseUint(hour, 10, 8)
	m := uint64(0)
	if given && err == nil {
		m, err = strconv.ParseUint(minute, 10, 8)
	}
	if err != nil || m > 59 || h > 24 || h == 24 && m > 0 || len(hour) > 2 || given && len(minute) != 2 {
		return 0, fmt.Errorf("%.64q is not a time of day: write 9, 09:30 or 24:00", text)
	}
	return clock(time.Duration(h)*time.Hour + time.Duration(m)*time.Minute), nil
}

// String writes the span as [ParseSpan] reads it.
func (s Span) String() string { return s.dayWords() + " " + s.from.String() + "-" + s.to.String() }

// dayWords writes days as ranges, from Monday on.
func (s Span) dayWords() string {
	if s.days == [7]bool{true, true, true, true, true, true, true} {
		return "daily"
	}
	var words []string
	for i := 0; i < 7; {
		if !s.days[(i+1)%7] {
			i++
			continue
		}
		last := i
		for last+1 < 7 && s.days[(last+2)%7] {
			last++
		}
		switch {
		case last == i:
			words = append(words, short(i))
		case last == i+1:
			words = append(words, short(i), short(last))
		default:
			words = append(words, short(i)+"-"+short(last))
		}
		i = last + 1
	}
	return strings.Join(words, ",")
}

// short is the name of a day by its number from Monday.
func short(i int) string { return time.Weekday((i + 1) % 7).String()[:3] }

func (c clock) String() string {
	return fmt.Sprintf("%02d:%02d", time.Duration(c)/time.Hour, time.Duration(c)%time.Hour/time.Minute)
}

// String writes the hours and the zone.
func (s Schedule) String() string {
	words := make([]string, len(s.spans))
	for i, span := range s.spans {
		words[i] = span.String()
	}
	if s.zone == nil {
		return strings.Join(words, "; ")
	}
	return strings.Join(words, "; ") + " (" + s.zone.String() + ")"
}
