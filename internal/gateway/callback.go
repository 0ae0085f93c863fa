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
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/headgate/headgate/internal/queue"
)

// A callback tells an address of the caller's choice that an execution has
// ended. It is owed from when the execution was accepted: the journal's meta key
// says so until it was delivered, or given up a day after.
const (
	callbackMeta     = "callback/" // then the execution's number
	callbackPatience = 24 * time.Hour
	callbackTimeout  = 15 * time.Second
	callbackAtOnce   = 16
	signatureField   = "Headgate-Signature"
)

// callbacks delivers them.
type callbacks struct {
	g      *Gateway
	client *http.Client
	slots  chan struct{}
}

func newCallbacks(g *Gateway) *callbacks {
	return &callbacks{
		g: g, slots: make(chan struct{}, callbackAtOnce),
		client: &http.Client{
			Timeout: callbackTimeout,
			// Only the listed hosts are spoken to, whatever they say.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
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

// owe notes on disk that the end of an execution is to be told.
func (o *org) owe(ctx context.Context, id int64) error {
	return o.store.SetMeta(ctx, callbackMeta+strconv.FormatInt(id, 10), []byte{1})
}

// resume delivers what an earlier process owed and did not.
func (c *callbacks) resume(o *org) {
	owed, err := o.store.MetaKeys(o.life, callbackMeta)
	if err != nil {
		o.log.Warn("callbacks that are owed can't be read", "err", err)
		return
	}
	for _, key := range owed {
		id, _ := strconv.ParseInt(strings.TrimPrefix(key, callbackMeta), 10, 64)
		x, err := o.store.Get(o.life, id)
		switch {
		case errors.Is(err, queue.ErrNotFound):
			o.settle(id)
		case err == nil && x.State.Ended():
			c.ended(o, &x)
		}
	}
}

// ended delivers the callback of an execution that has ended, if it has one.
func (c *callbacks) ended(o *org, x *queue.Execution) {
	var e extra
	if len(x.Extra) == 0 || json.Unmarshal(x.Extra, &e) != nil || e.Callback == "" {
		return
	}
	id := x.ID
	o.background.Go(func() { c.deliver(o, id, e.Callback) })
}

// settle notes that nothing is owed any more.
func (o *org) settle(id int64) {
	if err := o.store.SetMeta(context.WithoutCancel(o.life), callbackMeta+strconv.FormatInt(id, 10), nil); err != nil {
		o.log.Warn("a callback may be sent again after a restart", "execution", o.idOf(id), "err", err)
	}
}

// deliver tries until it is taken, with exponential backoff and full jitter, or
// until a day is over.
func (c *callbacks) deliver(o *org, id int64, address string) {
	log := o.log.With("execution", o.idOf(id))
	until := time.Now().Add(callbackPatience)
	for pause := time.Second; ; pause = min(2*pause, time.Hour) {
		c.slots <- struct{}{}
		err := c.post(o, id, address)
		<-c.slots
		switch {
		case err == nil:
			o.meter.Callback("delivered")
			o.settle(id)
			return
		case o.life.Err() != nil:
			return // the next process goes on
		case time.Now().After(until):
			log.Warn("a callback was given up", "err", err)
			o.meter.Callback("given_up")
			o.settle(id)
			return
		}
		o.meter.Callback("failed")
		log.Info("a callback was not taken", "err", err)
		if !sleep(o.life, time.Duration(rand.Float64()*float64(pause))+pause/4) {
			return
		}
	}
}

// post makes one attempt.
func (c *callbacks) post(o *org, id int64, address string) error {
	if p := c.check(address); p != nil {
		return errors.New(p.Detail) // the file was changed meanwhile
	}
	x, err := o.store.Get(o.life, id)
	if err != nil {
		return err
	}
	body, err := json.Marshal(o.view(&x, true))
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(o.life, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return errors.New("its address can't be used")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "headgate")
	req.Header.Set(fieldExecution, o.idOf(id))
	req.Header.Set(signatureField, signature(c.g.file().Callbacks.Secret.Reveal(), time.Now(), body))
	resp, err := c.client.Do(req)
	if whole, ok := errors.AsType[*url.Error](err); ok {
		return whole.Err // the address may hold a secret
	}
	if err != nil {
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
