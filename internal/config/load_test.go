package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/genesys"
	"github.com/headgate/headgate/internal/keys"
)

// hash returns the hash of a key that exists nowhere, as the file has it.
func hash(digit string) string { return "sha256:" + strings.Repeat(digit, 64) }

func parsedHash(t *testing.T, digit string) keys.Hash {
	h, err := keys.ParseHash(hash(digit))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// sources are an environment and files for tests.
func sources(env, files map[string]string) Sources {
	return Sources{
		Env: func(name string) string { return env[name] },
		ReadFile: func(path string) ([]byte, error) {
			if text, ok := files[path]; ok {
				return []byte(text), nil
			}
			return nil, &os.PathError{Op: "open", Path: path, Err: os.ErrNotExist}
		},
	}
}

var acme = map[string]string{"ID": "acme-client", "SECRET": "acme-secret"}

// login is an org with all that it needs, but for the name, indented.
const login = " {region: eu-west-1, credentials: {client_id: {env: ID}, client_secret: {env: SECRET}}"

func mustParse(t *testing.T, text string) *File {
	t.Helper()
	f, warnings, err := Parse("gw/gateway.yaml", []byte(text), sources(acme, nil))
	if err != nil || len(warnings) > 0 {
		t.Fatalf("%v, %v", warnings, err)
	}
	return f
}

func TestExample(t *testing.T) {
	f, warnings, err := Load("../../examples/gateway.yaml", func(name string) string { return "value of " + name })
	if err != nil || len(warnings) > 0 {
		t.Fatalf("%v, %v", warnings, err)
	}
	if len(f.Orgs) != 2 || len(f.Orgs[0].Callers) != 2 || len(f.Orgs[0].Peaks) != 1 || f.Orgs[0].Credentials.ClientID != "value of ACME_CLIENT_ID" {
		t.Errorf("%+v", f)
	}
}

// The smallest file has every default.
func TestDefaults(t *testing.T) {
	f := mustParse(t, "orgs: {acme: "+login+"}}\n")
	room := Room{
		Held: 10_000, HeldPerCaller: 10_000, Queued: 1_000_000, QueuedPerCaller: 1_000_000,
		QueuedBytes: 4 << 30, QueuedBytesPerCaller: 4 << 30,
	}
	secret := f.Orgs[0].Credentials.ClientSecret
	f.Orgs[0].Credentials.ClientSecret = genesys.Secret{} // can't be compared
	want := &File{
		Name: "gw/gateway.yaml", Listen: []string{"127.0.0.1:8080"}, Data: filepath.Join("gw", "headgate-data"),
		Keep: 7 * 24 * time.Hour, Drain: 30 * time.Second, defaultMaxWait: 5 * time.Minute,
		Bounds: Bounds{Room: room, Header: 64 << 10, Body: 32 << 20, Buffer: 1 << 20, Buffered: 256 << 20},
		Orgs: []Org{{
			Name: "acme", Region: "eu-west-1", APIURL: "https://api.mypurecloud.ie", LoginURL: "https://login.mypurecloud.ie",
			Credentials: genesys.Credentials{ClientID: "acme-client"}, Path: "/acme", Default: true,
			MaxWait: 5 * time.Minute, Concurrency: 200, Timeout: 5 * time.Minute, Bounds: room,
		}},
	}
	want.Bounds.HeldPerCaller, want.Bounds.QueuedPerCaller, want.Bounds.QueuedBytesPerCaller = 5000, 500_000, 2<<30
	if !reflect.DeepEqual(f, want) || secret.Reveal() != "acme-secret" {
		t.Errorf("got  %+v\nwant %+v", f, want)
	}
}

// Every key acts.
func TestEveryKey(t *testing.T) {
	text := `
listen: [127.0.0.1:1, "[::1]:2", LOCALHOST:3]
data: /var/lib/headgate
tls_in_front: true
operators: {ada: {key: ` + hash("1") + `}}
keep: 1d12h
drain: 0
max_wait: 90
bounds: {held: 10, held_per_caller: 4, queued: 1_000, queued_per_caller: 100, queued_bytes: 1MB, queued_bytes_per_caller: 512kB, header: 8KiB, body: 4096, buffer: 2kb, buffered: 1 MiB}
callbacks: {hosts: "Hooks.example.com, other.example.com:8443", secret: {file: hook}}
metrics: {public: true}
orgs:
  acme:
    api_url: https://API.example.com/v/
    login_url: https://login.example.com
    mode: login
    credentials: {client_id: an-id, client_secret: {file: /run/acme}}
    hosts: [Acme.Example.com, 10.0.0.1]
    path: /a-c.me
    default: true
    limits:
      - {name: a, rate: 300/min, burst: 100, per: org, match: "", learn: off}
      - {name: b, rate: 300/min, per: path, match: /api/v2/flows/, learn: on, ceiling: 5/s}
      - {name: c, rate: 300/min, learn: off}
      - {name: d, rate: 20/s}
      - {name: e, rate: learn, per: client}
      - {name: login, rate: 2/s, burst: 5}
    delivery: at-most-once
    max_wait: 10s
    concurrency: 7
    timeout: 1m30s
    bounds: {held: 20, queued: 50, queued_bytes_per_caller: 1KiB}
    peak_hours:
      - {zone: Europe/Paris, when: "Mon,Wed 09:00-12:00", keep: 30%, urgent: 1}
      - {zone: UTC, when: [daily 1-2, daily 3-4], keep: 0.5}
    callers:
      crm: {key: ` + hash("2") + `, weight: 3, urgency: 2, most_urgent: 1, held: 3, queued: 30, queued_bytes: 2KiB}
      slow: {key: ` + hash("3") + `, most_urgent: 5}
  globex: {region: mypurecloud.de, mode: pass-through, path: none, hosts: globex.example.com, delivery: at-least-once, limits: learn}
`
	f, warnings, err := Parse("/etc/gw.yaml", []byte(text), sources(nil, map[string]string{"/etc/hook": "hook-secret\n", "/run/acme": "a secret\r\n\n"}))
	if err != nil || len(warnings) > 0 {
		t.Fatalf("%v, %v", warnings, err)
	}
	a, g := f.Orgs[0], f.Orgs[1]
	for _, c := range []struct{ what, got, want any }{
		{"listen", f.Listen, []string{"127.0.0.1:1", "[::1]:2", "localhost:3"}},
		{"data", f.Data, "/var/lib/headgate"},
		{"tls_in_front", f.TLSInFront, true},
		{"operators", f.Operators, []Operator{{"ada", parsedHash(t, "1")}}},
		{"keep", f.Keep, 36 * time.Hour},
		{"drain", f.Drain, time.Duration(0)},
		{"max_wait", g.MaxWait, 90 * time.Second},
		{"bounds", f.Bounds, Bounds{Room{10, 4, 1000, 100, 1e6, 512e3}, 8192, 4096, 2000, 1 << 20}},
		{"callbacks.hosts", f.Callbacks.Hosts, []string{"hooks.example.com", "other.example.com:8443"}},
		{"callbacks.secret", f.Callbacks.Secret.Reveal(), "hook-secret"},
		{"metrics.public", f.PublicMetrics, true},
		{"api_url", a.APIURL, "https://api.example.com/v"},
		{"login_url", a.LoginURL, "https://login.example.com"},
		{"mode", []bool{a.PassThrough, g.PassThrough}, []bool{false, true}},
		{"client_id", a.Credentials.ClientID, "an-id"},
		{"client_secret", a.Credentials.ClientSecret.Reveal(), "a secret"},
		{"hosts", a.Hosts, []string{"acme.example.com", "10.0.0.1"}},
		{"path", []string{a.Path, g.Path}, []string{"/a-c.me", ""}},
		{"default", []bool{a.Default, g.Default}, []bool{true, false}},
		{"limits", a.Limits, []headgate.Limit{
			{Name: "a", Per: headgate.PerOrg, Rate: 5, Burst: 100, Learn: headgate.LearnOff},
			{Name: "b", Per: headgate.PerPath, Match: "/api/v2/flows/", Max: 300, Window: time.Minute, Ceiling: 5},
			{Name: "c", Match: "/api/", Rate: 4.75, Burst: 15, Learn: headgate.LearnOff},
			{Name: "d", Match: "/api/", Rate: 19, Burst: 1},
			{Name: "e", Per: headgate.PerClient, Match: "/api/"},
			{Name: "login", Per: headgate.PerClient, Match: "/oauth/token", Rate: 2, Burst: 5},
		}},
		{"limits: learn", g.Limits, []headgate.Limit{genesys.TokenLimit(0, 0)}},
		{"delivery", []headgate.Delivery{*a.Delivery, *g.Delivery}, []headgate.Delivery{headgate.AtMostOnce, headgate.AtLeastOnce}},
		{"org's max_wait", a.MaxWait, 10 * time.Second},
		{"concurrency", a.Concurrency, 7},
		{"timeout", a.Timeout, 90 * time.Second},
		{"org's bounds", a.Bounds, Room{20, 4, 50, 50, 1e6, 1024}},
		{"peak hours", fmt.Sprint(a.Peaks), "[{Mon,Wed 09:00-12:00 (Europe/Paris) 0.3 1} {daily 01:00-02:00; daily 03:00-04:00 (UTC) 0.5 2}]"},
		{"callers", a.Callers, []Caller{
			{"crm", parsedHash(t, "2"), 3, 2, 1, 3, 30, 2048},
			{"slow", parsedHash(t, "3"), 1, 5, 5, 4, 50, 1024},
		}},
		{"region", []string{g.Region, g.APIURL, g.LoginURL}, []string{"eu-central-1", "https://api.mypurecloud.de", "https://login.mypurecloud.de"}},
		{"guest", g.Guest("x"), Caller{Name: "x", Weight: 1, Urgency: 3, Held: 4, Queued: 100, QueuedBytes: 512e3}},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s: %v, want %v", c.what, c.got, c.want)
		}
	}
}

func TestListenAsText(t *testing.T) {
	f := mustParse(t, "listen: '127.0.0.1:1, [::1]:2'\norgs: {acme: "+login+"}}\n")
	if !slices.Equal(f.Listen, []string{"127.0.0.1:1", "[::1]:2"}) {
		t.Error(f.Listen)
	}
}

// One caller may have half of what its org may, unless it is the only one.
func TestRoomOfCallers(t *testing.T) {
	crm, export := "crm: {key: "+hash("2")+"}", "export: {key: "+hash("3")+", held: 10}"
	for _, c := range []struct {
		callers string
		want    []int
	}{
		{"", nil},
		{", callers: {" + crm + "}", []int{100}},
		{", callers: {" + crm + ", " + export + "}", []int{50, 10}},
	} {
		f := mustParse(t, "bounds: {held: 100}\norgs: {acme: "+login+c.callers+"}}\n")
		var got []int
		for _, caller := range f.Orgs[0].Callers {
			got = append(got, caller.Held)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v", c.callers, got)
		}
	}
}

func TestWarnings(t *testing.T) {
	for text, want := range map[string]string{
		"orgs: {acme: {region: eu-west-1, credentials: {client_id: x, client_secret: not-shown}}}":                                                       "f:1: orgs.acme.credentials.client_secret: is a secret in the file itself",
		"orgs:\n  acme: {api_url: http://api.example.com, login_url: http://127.0.0.1:1, credentials: {client_id: x, client_secret: {env: SECRET}}}":     "f:2: orgs.acme.api_url: is http",
		"callbacks: {hosts: h, secret: not-shown}\norgs: {acme: {region: eu-west-1, credentials: {client_id: {env: ID}, client_secret: {env: SECRET}}}}": "f:1: callbacks.secret: is a secret in the file itself",
	} {
		_, warnings, err := Parse("f", []byte(text), sources(acme, nil))
		if err != nil || len(warnings) != 1 || !strings.HasPrefix(warnings[0].String(), want) || strings.Contains(warnings[0].String(), "not-shown") {
			t.Errorf("%s: %v, %v", text, warnings, err)
		}
	}
}

func TestLoadPermissions(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("permissions are elsewhere")
	}
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("open", "s", 0o644)
	write("closed", "s", 0o640)
	for _, c := range []struct {
		secret string
		mode   os.FileMode
		want   []string
	}{
		{"{file: closed}", 0o644, nil},
		{"{file: open}", 0o600, []string{"the file " + filepath.Join(dir, "open") + " holds a secret and can be read by everybody"}},
		{"inline", 0o640, []string{"is a secret in the file itself"}},
		{"inline", 0o644, []string{"holds a secret and can be read by everybody", "is a secret in the file itself"}},
	} {
		path := write("gateway.yaml", "orgs:\n  acme: {region: eu-west-1, credentials: {client_id: x, client_secret: "+c.secret+"}}", c.mode)
		_, warnings, err := Load(path, os.Getenv)
		ok := err == nil && len(warnings) == len(c.want)
		for i := range c.want {
			ok = ok && strings.Contains(warnings[i].String(), c.want[i])
		}
		if !ok {
			t.Errorf("%s, %v: %v, %v", c.secret, c.mode, warnings, err)
		}
	}
	if _, _, err := Load(filepath.Join(dir, "nothing"), os.Getenv); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, _, err := Load(write("large", strings.Repeat("#\n", 1<<20), 0o600), os.Getenv); err == nil || !strings.Contains(err.Error(), "is larger than") {
		t.Error(err)
	}
}

func TestTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"gw.example.com"}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: cert}, "key.pem": {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "gateway.yaml")
	if err := os.WriteFile(path, []byte("listen: :8443\ntls: {cert: cert.pem, key: key.pem}\noperators: {ada: {key: "+hash("1")+"}}\norgs: {a: {region: eu-west-1, mode: pass-through}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, warnings, err := Load(path, os.Getenv)
	if err != nil || f.TLS != (TLS{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}) {
		t.Errorf("%+v, %v", f, err)
	}
	if runtime.GOOS != "windows" && (len(warnings) != 1 || !strings.Contains(warnings[0].Message, "key.pem holds a secret")) {
		t.Error(warnings)
	}
}

func TestFromEnv(t *testing.T) {
	env := map[string]string{genesys.EnvClientID: " id ", genesys.EnvClientSecret: "s", genesys.EnvRegion: "mypurecloud.ie"}
	f, _, err := FromEnv(func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	o := f.Orgs[0]
	if o.Name != "default" || o.Path != "" || !o.Default || o.APIURL != "https://api.mypurecloud.ie" || o.Credentials.ClientID != "id" ||
		o.Credentials.ClientSecret.Reveal() != "s" || o.Bounds.Held == 0 || o.MaxWait == 0 || f.Data != "headgate-data" || f.Listen[0] != "127.0.0.1:8080" {
		t.Errorf("%+v", f)
	}
	env[genesys.EnvRegion] = "eu-west-9"
	var region *genesys.RegionError
	if _, _, err := FromEnv(func(name string) string { return env[name] }); !errors.As(err, &region) {
		t.Error(err)
	}
	var missing *genesys.EnvError
	if _, _, err := FromEnv(func(string) string { return "" }); !errors.As(err, &missing) || len(missing.Missing) != 3 {
		t.Error(err)
	}
}
