package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/gateway"
	"github.com/headgate/headgate/internal/keys"
)

// Whatever the address comes from: others must not reach a gateway without keys
// and TLS.
func TestForeignAddressIsRefused(t *testing.T) {
	_, caller := keys.New()
	_, operator := keys.New()
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "gateway.yaml")
		if err := os.WriteFile(path, []byte("data: "+t.TempDir()+"\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const org = "orgs: {a: {api_url: 'http://127.0.0.1:1', login_url: 'http://127.0.0.1:1', credentials: {client_id: a, client_secret: {env: SECRET}}"
	env := map[string]string{
		"SECRET": "x", "GENESYSCLOUD_REGION": "eu-west-1", "GENESYSCLOUD_OAUTHCLIENT_ID": "a", "GENESYSCLOUD_OAUTHCLIENT_SECRET": "x",
	}
	callers := ", callers: {crm: {key: '" + caller.String() + "'}}}}\n"
	for what, c := range map[string]struct {
		args []string
		says string
	}{
		"the emulator":             {[]string{"--emulator", "--listen", "0.0.0.0:0"}, "tls"},
		"the emulator, everywhere": {[]string{"--emulator", "--listen", ":0"}, "tls"},
		"IPv6":                     {[]string{"--emulator", "--listen", "[::]:0"}, "tls"},
		"a name":                   {[]string{"--emulator", "--listen", "gateway.example.com:0"}, "tls"},
		"the environment":          {[]string{"--listen", "0.0.0.0:0", "--data", t.TempDir()}, "tls"},
		"no TLS":                   {[]string{"--config", file(org + callers), "--listen", "0.0.0.0:0"}, "tls"},
		"no keys":                  {[]string{"--config", file("tls_in_front: true\n" + org + "}}\n"), "--listen", "0.0.0.0:0"}, "callers"},
		"an operator's key alone":  {[]string{"--config", file("tls_in_front: true\noperators: {ada: {key: '" + operator.String() + "'}}\n" + org + "}}\n"), "--listen", "0.0.0.0:0"}, "callers"},
		"no address":               {[]string{"--emulator", "--listen", "8080"}, "takes an address"},
	} {
		code, _, stderr := command(t, env, nil, append([]string{"gateway", "--for", "1ms"}, c.args...)...)
		if code != exitUsage || !strings.Contains(stderr, c.says) || !strings.Contains(stderr, "--listen") || strings.Contains(stderr, "the gateway is on") {
			t.Errorf("%s: exit %d, %s", what, code, stderr)
		}
	}
	for what, args := range map[string][]string{
		"loopback":     {"--emulator", "--listen", "127.0.0.1:0"},
		"keys and TLS": {"--config", file("tls_in_front: true\n" + org + callers), "--listen", "127.0.0.2:0"},
	} {
		if code, _, stderr := command(t, env, nil, append([]string{"gateway", "--for", "1ms"}, args...)...); code != 0 {
			t.Errorf("%s: exit %d, %s", what, code, stderr)
		}
	}
}

// A certificate that was renewed is served once the file is read again. One that
// can't be used leaves the one before, and is logged.
func TestCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	issue := func(serial int64) {
		t.Helper()
		cert, key := selfSigned(t, serial)
		write("cert.pem", cert)
		write("key.pem", key)
	}
	issue(1)
	write("gateway.yaml", "listen: 127.0.0.1:1\ntls: {cert: cert.pem, key: key.pem}\norgs: {a: {api_url: 'http://127.0.0.1:1', login_url: 'http://127.0.0.1:1', mode: pass-through}}\n")
	var logged bytes.Buffer
	log := slog.New(slog.NewTextHandler(&logged, nil))
	// What the command line says holds for each reading.
	d := &door{config: filepath.Join(dir, "gateway.yaml"), listen: "127.0.0.1:0", data: t.TempDir()}
	p := &process{env: func(string) string { return "" }, stderr: io.Discard}
	file, end, err := d.file(p, log)
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	listeners, c, err := listen(file)
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.Open(gateway.Config{File: file})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	ctx, stop := context.WithCancel(t.Context())
	over := make(chan error)
	go func() { over <- g.Serve(ctx, ctx, listeners, c.config()) }()
	serial := func() int64 {
		t.Helper()
		conn, err := tls.Dial("tcp", listeners[0].Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	for i, step := range []struct {
		change func()
		serial int64
		logs   string
	}{
		{func() {}, 1, "the file was read again"},
		{func() { issue(2) }, 2, "the file was read again"},
		{func() { write("key.pem", "no key") }, 2, "level=ERROR"},
		{func() { _, key := selfSigned(t, 3); write("key.pem", key) }, 2, "level=ERROR"},
		{func() { issue(4) }, 4, "the file was read again"},
		{func() {
			write("gateway.yaml", "orgs: {a: {api_url: 'http://127.0.0.1:1', login_url: 'http://127.0.0.1:1', mode: pass-through}}\n")
		}, 4, "tls can't be begun or ended"},
	} {
		step.change()
		logged.Reset()
		d.reload(p, g, c, log)
		if got := serial(); got != step.serial || !strings.Contains(logged.String(), step.logs) {
			t.Errorf("step %d: certificate %d, %s", i, got, logged.String())
		}
	}
	stop()
	if err := <-over; err != nil {
		t.Error(err)
	}
}

// selfSigned makes a certificate and its key.
func selfSigned(t *testing.T, serial int64) (certPEM, keyPEM string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
}
