package headgatetest_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/emulator"
	"github.com/headgate/headgate/headgatetest"
)

// sendAll is the client under test. It waits as it is told.
func sendAll(client *http.Client, base string, n int) error {
	for i := 0; i < n; {
		res, err := client.Post(base+"/api/v2/architect/flows/my-flow/execute", "application/json", strings.NewReader(fmt.Sprintf(`{"row":%d}`, i)))
		if err != nil {
			return err
		}
		res.Body.Close()
		switch res.StatusCode {
		case http.StatusOK:
			i++
		case http.StatusTooManyRequests:
			wait, err := time.ParseDuration(res.Header.Get("Retry-After") + "s")
			if err != nil {
				return err
			}
			time.Sleep(wait)
		default:
			return fmt.Errorf("unexpected: %s", res.Status)
		}
	}
	return nil
}

// A test of a client that waits as it is told. In a test of yours, the function
// below is the body of a synctest bubble, where the second that the client waits
// takes no time:
//
//	func TestMyClient(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) { … })
//	}
func Example() {
	test := func(t testing.TB) {
		p := headgatetest.New(t, emulator.Config{
			Limits:   []emulator.Limit{{Rate: 1, Burst: 3}},
			AnyToken: true, // this client does not log in
			Expected: 4,
		})
		if err := sendAll(p.Client(), p.URL, 4); err != nil {
			t.Fatal(err)
		}
		r := p.Emulator.Report()
		fmt.Println("executed", r.Executed, "lost", r.Lost, "doubled", r.Doubled, "early", r.Early)
		fmt.Println("rejected", r.Rejected, "logins", r.Logins)
	}
	inner(nil, test)

	// Output:
	// executed 4 lost 0 doubled 0 early 0
	// rejected 1 logins 0
}
