package gateway

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/headgate/headgate/internal/queue"
)

// A callback tells an address of the caller's choice that an execution has
// ended. It is owed from when the execution was accepted: a note in the journal,
// written with it, says so until it was delivered, or given up a day after the
// end.
const (
	callbackNote     = "callback/" // then the execution's number
	callbackPatience = 24 * time.Hour
	callbackTimeout  = 15 * time.Second
	callbackAtOnce   = 16 // on their way, of one org
	callbackMost     = 4096
	callbackLook     = time.Minute
	signatureField   = "Headgate-Signature"
)

// callbacks is what all orgs need to deliver them.
type callbacks struct {
	g      *Gateway
	client *http.Client
}

func newCallbacks(g *Gateway) *callbacks {
	wire := http.DefaultTransport.(*http.Transport).Clone()
	wire.MaxIdleConnsPerHost = callbackAtOnce
	return &callbacks{g: g, client: &http.Client{
		Timeout:   callbackTimeout,
		Transport: wire,
		// Only the listed hosts are spoken to, whatever they say.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// check says what is wrong with an address for a callback, nil if nothing is.
func (c *callbacks) check(address string) *problem {
	bad := func(why string) *problem { return badRequest.problem("the header field " + fieldCallback + ": " + why) }
	conf := c.g.file().Callbacks
	u, err := url.Parse(address)
	switch {
	case len(conf.Hosts) == 0:
		return bad("the gateway's file allows no callbacks (callbacks.hosts)")
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || len(address) > 2048:
		return bad("takes an address such as https://hooks.example.com/path")
	case u.Scheme != "https" && !(u.Scheme == "http" && isLocalName(u.Host)):
		return bad("takes https (or http on this machine)")
	case !slices.Contains(conf.Hosts, strings.ToLower(u.Host)):
		return bad("its host is not on the gateway's list (callbacks.hosts)")
	}
	return nil
}

// post makes one attempt to deliver the callback of x.
func (c *callbacks) post(ctx context.Context, o *org, x *queue.Execution, address string) error {
	if p := c.check(address); p != nil {
		return errors.New(p.Detail) // the file was changed meanwhile
	}
	body, err := json.Marshal(o.view(x, true))
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return errors.New("its address can't be used")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "headgate")
	req.Header.Set(fieldExecution, o.idOf(x.ID))
	req.Header.Set(signatureField, signature(c.g.file().Callbacks.Secret.Reveal(), time.Now(), body))
	resp, err := c.client.Do(req)
	if whole, ok := errors.AsType[*url.Error](err); ok {
		return whole.Err // the address may hold a secret
	}
	if err != nil {
		// Its address may hold what is nobody's business.
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		return err
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("answered %d", resp.StatusCode)
	}
	return nil
}

// signature lets the receiver know that a callback is ours and new: the time,
// and the HMAC-SHA256 of the time, a dot and the body.
func signature(secret string, now time.Time, body []byte) string {
	at := strconv.FormatInt(now.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(at + "."))
	mac.Write(body)
	return "t=" + at + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}
