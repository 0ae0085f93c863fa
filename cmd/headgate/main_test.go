package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
			return os.WriteFile(filepath.Join(env.WorkDir, "large.jsonl"), []byte(large), 0o666)
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
