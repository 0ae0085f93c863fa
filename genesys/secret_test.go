package genesys

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
)

func TestSecretIsNeverShown(t *testing.T) {
	secret := NewSecret(testSecret)
	creds := Credentials{ClientID: "client-a", ClientSecret: secret}
	hidden := struct{ a Credentials }{creds} // fmt calls no methods of what is not exported
	org, err := Connect(Config{Credentials: creds, Region: "eu-west-1"})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, v := range []any{secret, &secret, creds, &creds, hidden, []any{secret}, map[string]any{"a": creds}, org, org.config, org.Tokens.config, fmt.Errorf("%v", secret)} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%c", "%U", "%e", "%p", "%T", "%w"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
	}
	text, err := json.Marshal(map[string]any{"a": secret, "b": &creds, "c": []Secret{secret}})
	if err != nil {
		t.Fatal(err)
	}
	out.Write(text)
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("m", "secret", secret, "creds", creds, "ptr", &creds, "hidden", hidden, "org", org.Tokens)
	}
	for _, forms := range []string{testSecret, fmt.Sprintf("%x", testSecret), fmt.Sprintf("%X", testSecret), fmt.Sprint([]byte(testSecret))} {
		if strings.Contains(out.String(), forms) {
			t.Errorf("%q is in %s", forms, out.String())
		}
	}
	if !strings.Contains(out.String(), `{"a":"[redacted]","b":{"ClientID":"client-a","ClientSecret":"[redacted]","Region":""},"c":["[redacted]"]}`) {
		t.Errorf("JSON is %s", text)
	}
	for _, verb := range []string{"%d", "%x", "%v", "%#v", "%s"} {
		if got := fmt.Sprintf(verb, secret); got != redacted {
			t.Errorf("%s gives %q", verb, got)
		}
	}
	if got := secret.LogValue().String(); got != redacted {
		t.Errorf("LogValue gives %q", got)
	}
	if secret.Reveal() != testSecret || (Secret{}).Reveal() != "" || (Secret{}).String() != "" || !reflect.DeepEqual(NewSecret(""), Secret{}) {
		t.Error("a secret does not keep what it was given")
	}
	var read Secret
	if err := json.Unmarshal([]byte(`"`+testSecret+`"`), &read); err != nil || read.Reveal() != testSecret {
		t.Errorf("reading one: %v", err)
	}
}

func TestCredentialsFromEnv(t *testing.T) {
	set := func(id, secret, region string) {
		t.Setenv(EnvClientID, id)
		t.Setenv(EnvClientSecret, secret)
		t.Setenv(EnvRegion, region)
	}
	set("client-a", testSecret+"\n", "eu-west-1")
	c, err := CredentialsFromEnv()
	if err != nil || c.ClientID != "client-a" || c.ClientSecret.Reveal() != testSecret || c.Region != "eu-west-1" {
		t.Errorf("%+v, %v", c, err)
	}
	for _, test := range []struct {
		id, secret, region string
		missing            []string
	}{
		{"", "", "", []string{EnvClientID, EnvClientSecret, EnvRegion}},
		{"a", "", "eu-west-1", []string{EnvClientSecret}},
		{" ", "s", "eu-west-1", []string{EnvClientID}},
		{"a", "s", "", []string{EnvRegion}},
	} {
		set(test.id, test.secret, test.region)
		c, err := CredentialsFromEnv()
		e, ok := errors.AsType[*EnvError](err)
		if !ok || !reflect.DeepEqual(e.Missing, test.missing) {
			t.Errorf("%+v: %v", test, err)
			continue
		}
		for _, name := range []string{EnvClientID, EnvClientSecret, EnvRegion} {
			named := strings.Contains(e.Error(), name)
			if want := strings.Contains(strings.Join(test.missing, " "), name); named != want {
				t.Errorf("%+v: %v", test, err)
			}
		}
		if c.ClientID != strings.TrimSpace(test.id) || c.ClientSecret.Reveal() != test.secret || c.Region != test.region {
			t.Errorf("%+v: what is there is not returned: %+v", test, c)
		}
	}
}
