package sqlite

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/headgate/headgate/internal/queue"
)

// No list looks at more than it shows: each branch is searched by its index and
// comes out of it in order, and what is sorted after that is a chunk of each.
func TestListPlans(t *testing.T) {
	s := mustOpen(t, filepath.Join(t.TempDir(), "journal"), small)
	for _, states := range [][]queue.State{
		nil, {queue.Unknown}, {queue.Queued}, {queue.Claimed}, {queue.Queued, queue.Sent}, {queue.Done, queue.Failed, queue.Queued},
	} {
		for _, caller := range []string{"", "a"} {
			for _, newest := range []bool{false, true} {
				f := queue.Filter{States: states, Caller: caller, Newest: newest}
				query, args := eachQuery(f)
				rows, err := s.read.Query("EXPLAIN QUERY PLAN "+query, append(args, 100, 50)...)
				must(t, err)
				var plan []string
				for rows.Next() {
					var id, parent, unused int
					var detail string
					must(t, rows.Scan(&id, &parent, &unused, &detail))
					plan = append(plan, detail)
				}
				must(t, rows.Err())
				sorts, branches := 0, len(branches(f))
				for _, line := range plan {
					if strings.Contains(line, "TEMP B-TREE") {
						sorts++
					}
					if strings.HasPrefix(line, "SCAN execution") {
						t.Errorf("%+v: %s", f, line)
					}
				}
				if branches == 1 && sorts > 0 || sorts > branches {
					t.Errorf("%+v sorts:\n%s", f, strings.Join(plan, "\n"))
				}
			}
		}
	}
}
