package queue

import (
	"os"
	"regexp"
	"slices"
	"testing"
)

// The ways are written down twice on purpose: here as the drawing's sentence,
// there as the table that the stores obey.
func TestLegal(t *testing.T) {
	legal := map[State][]State{
		Queued:  {Claimed, Failed, Expired, Unknown},
		Claimed: {Queued, Sent, Done, Failed, Expired, Unknown},
		Sent:    {Queued, Done, Failed, Expired, Unknown},
		Unknown: {Queued, Failed},
	}
	for from := Queued - 1; from <= Unknown+1; from++ {
		for to := Queued - 1; to <= Unknown+1; to++ {
			want := slices.Contains(legal[from], to)
			if got := Legal(from, to); got != want {
				t.Errorf("Legal(%v, %v) = %v, want %v", from, to, got, want)
			}
			if got := LegalUpdate(from, to); got != (want && to != Claimed) {
				t.Errorf("LegalUpdate(%v, %v) = %v", from, to, got)
			}
			if from.Ended() && from != Unknown && Legal(from, to) {
				t.Errorf("%v is an outcome and goes on to %v", from, to)
			}
		}
	}
	for s, want := range map[State]bool{
		-1: false, Queued: true, Claimed: false, Sent: false, Done: true, Failed: true, Expired: true,
		Unknown: true, Unknown + 1: false,
	} {
		if got := LegalStart(s); got != want {
			t.Errorf("LegalStart(%v) = %v, want %v", s, got, want)
		}
	}
}

// docs/states.md lists each way in a table: it has exactly those of the code.
func TestDocumentedWays(t *testing.T) {
	doc, err := os.ReadFile("../../docs/states.md")
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, m := range regexp.MustCompile(`(?m)^\| (\w+) → (\w+) \|`).FindAllSubmatch(doc, -1) {
		got = append(got, string(m[1])+" → "+string(m[2]))
	}
	for from, tos := range ways {
		for _, to := range tos {
			want = append(want, State(from).String()+" → "+to.String())
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("docs/states.md has the ways\n%q\nwant\n%q", got, want)
	}
}

func TestWords(t *testing.T) {
	for s, want := range map[State]string{
		Queued: "queued", Claimed: "claimed", Sent: "sent", Done: "done", Failed: "failed",
		Expired: "expired", Unknown: "unknown", Unknown + 1: "invalid", -1: "invalid",
	} {
		if s.String() != want {
			t.Errorf("State(%d) is %q, want %q", int(s), s, want)
		}
	}
	if AtLeastOnce.String() != "at-least-once" || AtMostOnce.String() != "at-most-once" || Delivery(0).String() != "as configured" {
		t.Errorf("deliveries are %q, %q and %q", AtLeastOnce, AtMostOnce, Delivery(0))
	}
	c := Counts{Queued: 1, Claimed: 2, Sent: 4, Done: 8, Failed: 16, Expired: 32, Unknown: 64}
	if c.Open() != 7 || c.Total() != 127 {
		t.Errorf("Open %d and Total %d, want 7 and 127", c.Open(), c.Total())
	}
}
