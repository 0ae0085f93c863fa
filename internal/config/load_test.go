package config

import "testing"

func TestExample(t *testing.T) {
	f, w, err := Load("../../examples/gateway.yaml", func(string) string { return "x" })
	t.Log(w, err)
	t.Logf("%+v", f)
}
