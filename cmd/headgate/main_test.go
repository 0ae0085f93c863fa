package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/headgate/headgate/genesys"
)

// TestMain makes the test binary the headgate command for scripts, and for
// tests that kill it.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"headgate": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			large := fmt.Sprintf("{\"flowId\":\"f\",\"a\":1}\n{\"flowId\":\"f\",\"a\":%q}\n", strings.Repeat("x", genesys.MaxRequestBytes))
			// What another run has learned a moment ago.
			other := fmt.Sprintf(`{"kind": %q, "version": 1, "limits": [{"limit": "a", "org": "another.example", "at": %q, "spent": 1}]}`, learnedKind, time.Now().Format(time.RFC3339))
			slow := fmt.Sprintf(`{"kind": %q, "version": 1, "limits": [{"limit": "client.credentials.token.rate.per.minute", "match": "/api/",
				"org": "emulator", "client": "emulator-client", "token": "emulator-client", "at": %q, "spent": 0,
				"learned": {"of": {"Learn": true}, "rate": 0.5, "variance": 0.001, "level": 0, "hold": 1, "pause": 1}}]}`, learnedKind, time.Now().Format(time.RFC3339))
			var many strings.Builder
			for i := range 120 {
				fmt.Fprintf(&many, "{\"a\":%d}\n", i)
			}
			return errors.Join(
				os.WriteFile(filepath.Join(env.WorkDir, "many.jsonl"), []byte(many.String()), 0o666),
				os.WriteFile(filepath.Join(env.WorkDir, "large.jsonl"), []byte(large), 0o666),
				os.WriteFile(filepath.Join(env.WorkDir, "other.json"), []byte(other), 0o666),
				os.WriteFile(filepath.Join(env.WorkDir, "slow.json"), []byte(slow), 0o666),
			)
		},
	})
}

// childEnv returns the environment in which the test binary, called as headgate,
// reaches an emulator at url.
func childEnv() []string {
	return append(os.Environ(),
		"GENESYSCLOUD_OAUTHCLIENT_ID=emulator-client",
		"GENESYSCLOUD_OAUTHCLIENT_SECRET=emulator-secret",
	)
}
